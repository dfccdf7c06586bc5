"""Builds the wheel `callshield-pjsua2`: pjsua2 with our limits, and our module `pjsip_guard`.

`python3 -m sipbridge.pjsua2_build.build` is the program; `./run setup` calls it. It runs before
anything is installed, so nothing here needs more than Python's standard library.
"""
