"""The announcements that ship with Callshield, and the scripts that made them.

The WAV files and ``manifest.toml`` (what each file is, says and tells) are all that a running
system reads; ``versions.toml`` has what every version said. ``render.py``, ``verify.py`` and their
modules are run by hand, in a virtual environment of their own (``requirements-render.lock``);
nothing imports them.
"""
