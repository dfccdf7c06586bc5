"""What the caller's audio means: voice activity, vocal effort, risk levels.

Pure cores (``resample``, ``reorder``, ``vad``, ``features``, ``acoustic``, ``risk``, ``stream``,
``engine``) take arrays and a clock; thin shells (``process``, ``analyze``) own sockets and files.
``telephone``, ``train`` and ``evaluate`` rebuild and measure the shipped model.
"""

import os

# Before numpy is loaded. OpenBLAS keeps a thread for every further core, which waits by spinning:
# with 50 calls it took a third of a core, for products of a few kilobytes (docs/performance.md).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
