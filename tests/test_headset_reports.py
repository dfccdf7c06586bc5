"""Keys and lamps are found in report descriptors, whatever their layout: the page's own reader."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware_profiles.catalogue import shipped
from firmware_profiles.console_makers import script
from notifier.app import CONSOLE
from tests.console_kit import Screen, chromium, screen
from tests.hid_kit import (
    DELL,
    FAMILIES,
    JABRA,
    LAMPS,
    NO_TELEPHONY,
    POLY,
    SILENT,
    USAGES,
    YEALINK,
    collections,
    place,
)
from tests.notifier_kit import desk_in_process

pytestmark = pytest.mark.browser

#: [collections, [[report id, bytes], …] to read, [[lit, only], …] to write] → what comes of each.
READ = """async (cases) => {
  const { telephonyOf, readReport, writeReports } = await import("/console/hid_reports.js");
  return cases.map(([collections, inputs, outputs]) => {
    const layout = telephonyOf(collections);
    if (layout === null) return null;
    const view = (bytes) => new DataView(Uint8Array.from(bytes).buffer);
    return {
      keys: layout.keys,
      lamps: layout.lamps,
      read: inputs.map(([id, bytes]) => readReport(layout, id, view(bytes))),
      written: outputs.map(([lit, only]) => writeReports(layout, new Set(lit), new Set(only))
        .map(({ reportId, data }) => [reportId, ...data])),
    };
  });
}"""
Case = tuple[Any, list[Any], list[Any]]


@asynccontextmanager
async def page_of(folder: Path) -> AsyncIterator[Screen]:
    """A page of the console, nobody signed in."""
    async with (
        desk_in_process(folder) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        yield one


def test_the_makers_of_the_profiles_are_those_that_the_console_asks_for() -> None:
    shown = (CONSOLE / "headset_makers.js").read_text(encoding="utf-8")
    assert shown == script(shipped().headsets.values()), (
        "python -m firmware_profiles.console_makers > notifier/console/headset_makers.js"
    )
    for maker in shipped().headsets.values():
        assert f"vendorId: 0x{maker.usb.vendor_id:04x}" in shown


async def test_every_family_is_read_and_written_as_its_maker_says(tmp_path: Path) -> None:
    in_call, flash = [["off_hook"], ["off_hook", "ring"]], [["off_hook", "ring"], ["ring"]]
    cases: dict[str, tuple[Case, list[Any], list[Any]]] = {
        "jabra": (
            (JABRA.collections, [[2, [1, 0]], [2, [5, 0]], [1, [1]], [2, [4]]], [in_call, flash]),
            [
                {"hook": 1, "mute": 0, "flash": 0, "voice_mail": 0, "speed_dial": 0}
                | {"programmable": 0},
                {"hook": 1, "mute": 1, "flash": 0, "voice_mail": 0, "speed_dial": 0}
                | {"programmable": 0},
                {},
                # A report that is shorter than it should be says what it has.
                {"hook": 0, "mute": 1, "flash": 0, "voice_mail": 0, "speed_dial": 0},
            ],
            [[[2, 0b1, 0]], [[2, 0b101, 0]]],
        ),
        "poly": (
            (POLY.collections, [[8, [0b11]], [9, [0b11]]], [in_call, flash, [["mute"], ["mute"]]]),
            [{"mute": 1, "hook": 1, "flash": 0}, {}],
            [[[23, 1], [24, 0]], [[24, 1]], [[9, 1]]],
        ),
        "yealink": (
            (YEALINK.collections, [[2, [0b1000, 0]]], [in_call, flash]),
            [{"hook": 0, "mute": 0, "flash": 1, "redial": 0, "speed_dial": 0}],
            [[[2, 0b1, 0]], [[2, 0b101, 0]]],
        ),
        "dell": (
            (DELL.collections, [[5, [0b100010]], [6, [1] * 61]], [in_call, flash]),
            [
                {"hook": 0, "mute": 1, "redial": 0, "flash": 0, "speed_dial": 0}
                | {"programmable": 0},
                {},
            ],
            [[[5, 0b1]], [[5, 0b101]]],
        ),
        "silent": (
            (SILENT.collections, [[3, [0b11]]], [[["message"], ["message"]]]),
            [{"hook": 1, "mute": 1, "flash": 0}],
            [[[3, 0b100]]],
        ),
    }
    assert cases.keys() == FAMILIES.keys()
    async with page_of(tmp_path) as one:
        found = await one.page.evaluate(READ, [case for case, _, _ in cases.values()])
    for (name, (case, read, written)), got in zip(cases.items(), found, strict=True):
        for key, at in got["keys"].items():
            assert (at["reportId"], at["bit"]) == place(case[0], "inputReports", USAGES[key]), key
        for lamp, at in got["lamps"].items():
            assert (at["reportId"], at["bit"]) == place(case[0], "outputReports", LAMPS[lamp]), lamp
        assert got["read"] == read, name
        assert got["written"] == written, name
    kinds = {
        name: {key: at["kind"] for key, at in got["keys"].items() if key in ("hook", "mute")}
        for name, got in zip(cases, found, strict=True)
    }
    stating = {"hook": "switch", "mute": "toggle"}
    assert kinds == {
        **dict.fromkeys(("jabra", "poly", "yealink", "dell"), stating),
        "silent": {"hook": "toggle", "mute": "switch"},
    }


def made_up(dice: random.Random) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A descriptor with keys and lamps in any order, sizes and reports, and where they are."""
    where: dict[str, tuple[int, int]] = {}
    body = b""
    ids = dice.sample(range(1, 255), 4)
    for main, names in ((0x81, USAGES), (0x91, LAMPS)):
        bits = dict.fromkeys(ids, 0)
        for name in dice.sample(sorted(names), dice.randint(1, len(names))):
            report = dice.choice(ids)
            pad = dice.randint(0, 11)
            body += bytes((0x85, report))
            if pad:
                body += bytes((0x75, 1, 0x95, pad, main, 0x01))
            usage = names[name]
            body += bytes((0x05, usage >> 16, 0x09, usage & 0xFFFF, 0x15, 0, 0x25, 1))
            body += bytes((0x75, 1, 0x95, 1, main, dice.choice((0x02, 0x06, 0x22, 0x23))))
            where[f"{main} {name}"] = (report, bits[report] + pad)
            bits[report] += pad + 1
    return bytes((0x05, 0x0B, 0x09, 0x05, 0xA1, 0x01)) + body + b"\xc0", where


async def test_any_layout_is_found_as_it_was_made(tmp_path: Path) -> None:
    dice = random.Random(7)
    made = [made_up(dice) for _ in range(300)]
    async with page_of(tmp_path) as one:
        found = await one.page.evaluate(READ, [(collections(text), [], []) for text, _ in made])
    for got, (_, where) in zip(found, made, strict=True):
        told = {f"{0x81} {name}": at for name, at in got["keys"].items()}
        told |= {f"{0x91} {name}": at for name, at in got["lamps"].items()}
        assert {name: (at["reportId"], at["bit"]) for name, at in told.items()} == where


async def test_what_is_no_telephone_or_nonsense_is_left_alone(tmp_path: Path) -> None:
    telephony = {"usagePage": 0x0B, "usage": 5}
    hook = {"usages": [0x0B0020], "reportSize": 1, "reportCount": 1}
    endless = {"usages": [], "reportSize": 1, "reportCount": 2**32}
    nothing: list[Any] = [
        None,
        [],
        NO_TELEPHONY.collections,
        [telephony],
        [{**telephony, "inputReports": [{"reportId": 1}]}],
        [{**telephony, "inputReports": [{"reportId": 1, "items": [{}]}]}],
        [{**telephony, "inputReports": [{"reportId": 1, "items": [endless, hook]}]}],
        # A lamp on a page of its maker is none of ours.
        [{"usagePage": 0xFF00, "outputReports": POLY.collections[1]["outputReports"]}],
    ]
    keypad = {
        "isArray": True,
        "isRange": True,
        "usageMinimum": 0x0B0020,
        "usageMaximum": 0x0B002F,
        "logicalMinimum": 1,
        "logicalMaximum": 16,
        "reportSize": 8,
        "reportCount": 2,
    }
    array = [{**telephony, "inputReports": [{"reportId": 0, "items": [keypad]}]}]
    buttons = {**hook, "reportSize": 2, "logicalMinimum": -1, "logicalMaximum": 1}
    pair = [{**telephony, "inputReports": [{"reportId": 0, "items": [buttons]}]}]
    async with page_of(tmp_path) as one:
        found = await one.page.evaluate(
            READ,
            [
                *[(told, [], []) for told in nothing],
                (array, [[0, [0, 2]], [0, [16, 1]], [0, [0, 0]]], []),
                (pair, [[0, [0b11]], [0, [0b01]], [0, [0]]], []),
            ],
        )
    assert found[: len(nothing)] == [None] * len(nothing)
    pressed = [[key for key, value in values.items() if value] for values in found[-2]["read"]]
    assert pressed == [["flash"], ["hook", "mute"], []]
    assert found[-1]["keys"]["hook"]["kind"] == "buttons"
    assert found[-1]["read"] == [{"hook": -1}, {"hook": 1}, {"hook": 0}]
