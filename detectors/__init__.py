"""What the caller's audio means: voice activity, vocal effort, risk levels.

Pure cores (``resample``, ``reorder``, ``vad``, ``features``, ``acoustic``, ``risk``, ``stream``,
``engine``) take arrays and a clock; thin shells (``process``, ``analyze``) own sockets and files.
``telephone``, ``train`` and ``evaluate`` rebuild and measure the shipped model.
"""
