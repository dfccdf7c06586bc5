"""A faithful double of ``navigator.hid``: headsets by their report descriptors.

What Chromium makes of a report descriptor is done here as its own parser does it
(services/device/public/cpp/hid/hid_collection.cc): items go to their collection and to all above
it, usages carry their page in the upper 16 bits. ``DOUBLE`` is a script for the page: devices that
refuse what the browser or the device refuses (not opened, an unknown report id, a length that is
not the report's), and behave as their makers say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Collection = dict[str, Any]

_INPUT, _OUTPUT, _FEATURE, _COLLECTION, _END = 0x80, 0x90, 0xB0, 0xA0, 0xC0
_LISTS = {_INPUT: "inputReports", _OUTPUT: "outputReports", _FEATURE: "featureReports"}
_GLOBALS = {
    0x04: "page",
    0x14: "logicalMinimum",
    0x24: "logicalMaximum",
    0x74: "reportSize",
    0x84: "reportId",
    0x94: "reportCount",
}


def _items(descriptor: bytes) -> Iterator[tuple[int, int, int]]:
    """Short items (HID 1.11, 6.2.2.2): tag and type, bytes of data, value as unsigned."""
    at = 0
    while at < len(descriptor):
        size = (0, 1, 2, 4)[descriptor[at] & 3]
        data = descriptor[at + 1 : at + 1 + size]
        assert len(data) == size, f"the descriptor ends within the item at {at}"
        yield descriptor[at] & 0xFC, size, int.from_bytes(data, "little")
        at += 1 + size


def _signed(value: int, size: int) -> int:
    return value - (1 << 8 * size) if size and value >> (8 * size - 1) else value


def collections(descriptor: bytes) -> list[Collection]:
    """``HIDDevice.collections`` of a report descriptor."""
    top: list[Collection] = []
    open_: list[Collection] = []
    state: dict[str, int] = {"page": 0, "reportId": 0, "logicalMinimum": 0, "logicalMaximum": 0}
    usages: list[int] = []
    ends: dict[int, int] = {}
    for tag, size, value in _items(descriptor):
        if tag in _GLOBALS:
            signed = tag in (0x14, 0x24)
            state[_GLOBALS[tag]] = _signed(value, size) if signed else value
        elif tag == 0x08:
            usages.append(value if size == 4 else state["page"] << 16 | value)
        elif tag in (0x18, 0x28):
            ends[tag] = value if size == 4 else state["page"] << 16 | value
        elif tag == _COLLECTION:
            made: Collection = {
                "usagePage": usages[0] >> 16 if usages else state["page"],
                "usage": usages[0] & 0xFFFF if usages else 0,
                "type": value,
                "children": [],
                **{name: [] for name in _LISTS.values()},
            }
            (open_[-1]["children"] if open_ else top).append(made)
            open_.append(made)
            usages, ends = [], {}
        elif tag == _END:
            open_.pop()
            usages, ends = [], {}
        elif tag in _LISTS:
            item: dict[str, Any] = {
                "isConstant": bool(value & 1),
                "isArray": not value & 2,
                "isAbsolute": not value & 4,
                "hasPreferredState": not value & 0x20,
                "hasNull": bool(value & 0x40),
                "isRange": bool(ends),
                "reportSize": state["reportSize"],
                "reportCount": state["reportCount"],
                "logicalMinimum": state["logicalMinimum"],
                "logicalMaximum": state["logicalMaximum"],
            }
            if ends:
                item |= {"usageMinimum": ends[0x18], "usageMaximum": ends[0x28]}
            else:
                item["usages"] = list(usages)
            for collection in open_:
                reports = collection[_LISTS[tag]]
                report = next((r for r in reports if r["reportId"] == state["reportId"]), None)
                if report is None:
                    report = {"reportId": state["reportId"], "items": []}
                    reports.append(report)
                report["items"].append(item)
            usages, ends = [], {}
    assert not open_, "a collection is not closed"
    return top


def place(found: list[Collection], direction: str, usage: int) -> tuple[int, int]:
    """Report id and bit of a usage, counted here once more, independently of the page."""
    for collection in [*found, *(child for one in found for child in one["children"])]:
        for report in collection[direction]:
            bit = 0
            for item in report["items"]:
                if not item["isArray"] and usage in item.get("usages", []):
                    return report["reportId"], bit + item["usages"].index(usage) * item[
                        "reportSize"
                    ]
                bit += item["reportSize"] * item["reportCount"]
    raise LookupError(f"{direction}: no usage {usage:#x}")


@dataclass(frozen=True)
class Headset:
    """One kind of headset."""

    vendor_id: int
    product_id: int
    name: str
    descriptor: bytes
    source: str
    """Where the descriptor is published, and what of it is ours."""
    echoes_hook: bool = False
    """States its hook switch again when it is told to go off-hook (Jabra)."""
    mutes_itself: bool = False
    """Its mute key mutes without the host (Poly); otherwise it asks, and waits for the lamp."""
    child_only: bool = False
    """Only the innermost collection has reports, as was seen of one model."""

    @property
    def collections(self) -> list[Collection]:
        found = collections(self.descriptor)
        if self.child_only:
            for one in found:
                for name in _LISTS.values():
                    one[name] = []
        return found

    def spec(self, **more: Any) -> str:
        """For ``hidBox.plug``."""
        return json.dumps(
            {
                "vendorId": self.vendor_id,
                "productId": self.product_id,
                "productName": self.name,
                "collections": self.collections,
                "echoesHook": self.echoes_hook,
                "mutesItself": self.mutes_itself,
                **more,
            }
        )


_CONSUMER = "050c0901a10185011500250109e909ea75019502810295068101c0"
#: One report of 16 bits each way, the keypad in a collection of its own in its midst.
JABRA = Headset(
    0x0B0E,
    0x0300,
    "Jabra EVOLVE 20",
    bytes.fromhex(
        "050b0905a1018502050b150025010920099775019502812"
        "2092f0921097009507501950481060906a10219b029bb1500250c750495018140c0"
        "0907150025010509750195018102750195058101"
        "05081500250109170909091809200921750195059122"
        "050b15002501099e7501950191227501950a9101c0" + _CONSUMER
    ),
    "report 2 of 16 bits: WICG/webhid issue 61 (Jabra Engage 50: report 2, two bytes), the same "
    "bits in Gigaset's page on its ION; byte for byte so (but for two constant marks) in the "
    "published dump of an Anker PowerConf",
    echoes_hook=True,
)
#: Each lamp has a report of its own; the mute key comes first, and mutes by itself.
POLY = Headset(
    0x047F,
    0xC056,
    "Plantronics Blackwire 3220 Series",
    bytes.fromhex(
        _CONSUMER + "050b0905a1018508092f150025017501950181060920092195028122750595018101"
        "850905080909750195019122750795019101"
        "8517091775019501912275079501910185180918750195019122750795019101c0"
    ),
    "libusb/hidapi pull request 262 (047f:c056, reports 8, 9, 23, 24); the padding is ours",
    mutes_itself=True,
)
#: Reports within a child collection, and only there.
YEALINK = Headset(
    0x6993,
    0xB206,
    "Yealink UH38",
    bytes.fromhex(
        "050b0905a1010906a102850215002501"
        "0920750195018122099795018122092f0921950281060924095095028106750a95018101"
        "05080917090909180920750195049122750c95019101c0c0"
    ),
    "purecloudlabs/softphone-vendor-headsets pull request 150 (6993:b206): report 2 in a child "
    "collection, input off-hook 1, mute 4, hold 8, output off-hook 1, mute 2, ring 4, hold 8",
    child_only=True,
)
#: The dump of a device on a desk, with vendor reports before its telephony collection.
DELL = Headset(
    0x413C,
    0x8223,
    "Dell Speakerphone SP325",
    bytes.fromhex(
        "050c0901a101850c1500250109e909ea09e209cd09b509b609b009b1"
        "750195088102c00613ff0901a101150026ff00850609007508953d91"
        "02850709007508953d8102c00614ff0901a101150026ff0085100900"
        "750895058102c00699ff0901a101859a150026ff00953f75080903b1"
        "02859b150025019501750109048106750195078101c0050b0905a101"
        "1500250175018505092095018122092f95018106092409210997092a"
        "0950950581060907050909017501950181020508850509170909091"
        "809200921092a9506912295029101c0"
    ),
    "dumped from hidraw in May 2026 and published as a test fixture; used unchanged",
)
#: Made by us: a lamp without sound, mute as a switch, a hook switch that is a button.
SILENT = Headset(
    0x1395,
    0x7777,
    "Silent lamp",
    bytes.fromhex(
        "050b0901a10185031500250175010920950181060 92f95018122092195018102750595018101".replace(
            " ", ""
        )
        + "05080917090909197501950391227505 95019101c0".replace(" ", "")
    ),
    "made by us from Microsoft's list of usages (message waiting, LED 0x19)",
)
NO_TELEPHONY = Headset(
    0x0B0E, 0x9999, "Jabra without call control", bytes.fromhex(_CONSUMER), "made by us"
)
FAMILIES = {"jabra": JABRA, "poly": POLY, "yealink": YEALINK, "dell": DELL, "silent": SILENT}

USAGES = {
    "hook": 0x0B0020,
    "mute": 0x0B002F,
    "flash": 0x0B0021,
    "redial": 0x0B0024,
    "speed_dial": 0x0B0050,
    "voice_mail": 0x0B0070,
    "programmable": 0x0B0007,
}
LAMPS = {"off_hook": 0x080017, "mute": 0x080009, "ring": 0x080018, "message": 0x080019}

#: ``window.hidBox``: plug, unplug, press; what was written. Grants outlive a reload, as the
#: browser's do; a second tab of the same browser has them, too.
DOUBLE = (Path(__file__).parent / "hid_double.js").read_text(encoding="utf-8")


def script(**headsets: Headset | str) -> str:
    """An init script: the double with these headsets plugged in, by id."""
    plugs = "".join(
        f"window.hidBox.plug({json.dumps(key)}, {one if isinstance(one, str) else one.spec()});"
        for key, one in headsets.items()
    )
    return DOUBLE + plugs
