"""The announcements that ship with Callshield, and the scripts that made them.

The WAV files, ``manifest.toml`` (what each file is) and ``texts.toml`` (what each one says) are
all that a running system reads. ``render.py``, ``verify.py`` and their modules are run by hand,
in a virtual environment of their own (``requirements-render.lock``); nothing imports them.
"""
