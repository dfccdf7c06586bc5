"""Packs files into a wheel (PyPA binary distribution format 1.0, PEP 427)."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import stat
import sys
import sysconfig
import zipfile
from pathlib import Path

DISTRIBUTION = "callshield-pjsua2"

_METADATA = """\
Metadata-Version: 2.1
Name: {name}
Version: {version}
Summary: pjsua2 (PJSIP {upstream}) built for Callshield, with the module pjsip_guard
License: GPL-3.0-or-later AND GPL-2.0-or-later
License-File: COPYING
Requires-Python: =={python}.*

PJSIP's pjsua2 (GPL-2.0-or-later) and Callshield's pjsip_guard (GPL-3.0-or-later), built by
sipbridge/pjsua2_build. The licence text is PJSIP's own COPYING.
"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: callshield sipbridge.pjsua2_build
Root-Is-Purelib: false
Tag: {tag}
"""


def python_tag() -> str:
    """Return this interpreter's compatibility tag, such as `cp311-cp311-linux_x86_64`."""
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    flags = getattr(sys, "abiflags", "")
    system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"{version}-{version}{flags}-{system}"


def abi() -> str:
    """Return what a compiled module is bound to: interpreter ABI and machine."""
    return f"{sysconfig.get_config_var('SOABI')} {platform.machine()}"


def write_wheel(
    folder: Path, upstream: str, local: str, files: dict[str, bytes], licence: bytes
) -> Path:
    """Write a wheel below `folder` and return its path; it appears there whole or not at all.

    Args:
        folder: an existing folder.
        upstream: pjproject's version.
        local: letters and digits that tell this build from others of that version (PEP 440).
        files: path in the wheel → bytes; `.so` files become executable.
        licence: PJSIP's licence text.
    """
    version = f"{upstream}+{local}"
    stem = f"{DISTRIBUTION.replace('-', '_')}-{version}"
    tag = python_tag()
    info = f"{stem}.dist-info"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    metadata = _METADATA.format(
        name=DISTRIBUTION, version=version, upstream=upstream, python=python
    )
    contents = {
        **files,
        f"{info}/licenses/COPYING": licence,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": _WHEEL.format(tag=tag).encode(),
    }
    record = f"{info}/RECORD"
    rows = [f"{name},{_record_hash(data)},{len(data)}" for name, data in sorted(contents.items())]
    contents[record] = "\n".join([*rows, f"{record},,", ""]).encode()

    path = folder / f"{stem}-{tag}.whl"
    partial = path.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            # A fixed date: the same build gives the same bytes.
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            mode = 0o755 if name.endswith(".so") else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, data)
    os.replace(partial, path)
    return path


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
