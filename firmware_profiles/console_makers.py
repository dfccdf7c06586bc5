"""The console's list of headset makers, generated from the headsets' profiles.

The console is served by the notifier, which knows nothing of profiles: it gets the makers' USB
vendor ids, by which the browser is asked for a headset, as a script of its own.
``python -m firmware_profiles.console_makers > notifier/console/headset_makers.js``; a test holds
the two together. Where a key or a lamp is, each headset says itself in its report descriptor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from firmware_profiles.catalogue import shipped
from firmware_profiles.schema import HeadsetProfile

_HEAD = """\
// Makers of USB headsets. Generated: python -m firmware_profiles.console_makers
export default [
"""


def script(headsets: Iterable[HeadsetProfile]) -> str:
    """A JavaScript module with one ``{vendor, vendorId}`` a maker that has call control."""
    lines = [
        f"  {{ vendor: {json.dumps(one.vendor, ensure_ascii=False)},"
        f" vendorId: 0x{one.usb.vendor_id:04x} }},\n"
        for one in headsets
        if one.hid
    ]
    return _HEAD + "".join(lines) + "];\n"


if __name__ == "__main__":
    print(script(shipped().headsets.values()), end="")
