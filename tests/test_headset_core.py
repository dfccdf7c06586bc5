"""What a headset is to show and what its keys mean: the page's core, with a clock of the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.console_kit import Screen, chromium, screen
from tests.hid_kit import JABRA, POLY, SILENT, Headset
from tests.notifier_kit import desk_in_process

pytestmark = pytest.mark.browser

#: Steps of one headset → what each gave: happenings, lamps that burn, or what the step asks for.
PLAY = """async ([collections, choices, resumed, steps]) => {
  const { HeadsetCore, helpKeys, signs } = await import("/console/headset_core.js");
  const { telephonyOf } = await import("/console/hid_reports.js");
  const layout = telephonyOf(collections);
  const core = new HeadsetCore(layout, choices, resumed);
  return steps.map(([what, ...rest]) => {
    if (what === "lamps") {
      const { lit, only } = core.lamps(...rest);
      return [...lit].filter((name) => only.has(name)).sort();
    }
    if (what === "only") return [...core.lamps(...rest).only].sort();
    if (what === "mute") return core.mute;
    if (what === "keys") return helpKeys(layout);
    if (what === "signs") return signs(layout, ...rest);
    return core[what](...rest) ?? null;
  });
}"""
RING: dict[str, Any] = {"callLamp": True, "sign": "ring", "helpKey": "flash"}


async def play(
    one: Screen, headset: Headset, choices: dict[str, Any], *steps: Any, resumed: bool = False
) -> list[Any]:
    """What each step gave."""
    found: list[Any] = await one.page.evaluate(
        PLAY, [headset.collections, choices, resumed, [list(step) for step in steps]]
    )
    return found


async def test_lamps_follow_calls_and_danger_and_never_ring_aloud(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        said = await play(
            one,
            JABRA,
            RING,
            ("follow", False, 0, 0),
            ("lamps", 0),
            ("follow", True, 1, 1000),
            ("lamps", 1000),
            ("next", 1000),
            ("follow", True, 2, 2000),
            ("lamps", 2000),
            ("next", 2000),
            ("lamps", 2400),
            ("next", 2400),
            ("lamps", 3000),
            ("lamps", 4399),
            ("lamps", 5000),
            ("next", 5000),
            # The same level again is no news; a higher one is.
            ("follow", True, 2, 6000),
            ("lamps", 6000),
            ("follow", True, 3, 7000),
            ("lamps", 7000),
            # The call ends in the midst of it.
            ("follow", False, 0, 7100),
            ("lamps", 7100),
            ("next", 7100),
            ("follow", True, 2, 8000),
            ("lamps", 8000),
            ("follow", True, 0, 8100),
            ("lamps", 8100),
        )
        call, sign = ["off_hook"], ["off_hook", "ring"]
        assert said == [
            *[None, [], None, call, None],
            *[None, sign, 400, call, 600, sign, sign, call, None],
            *[None, call, None, sign],
            *[None, [], None, None, sign, None, call],
        ]
        # Without the call lamp there is no ring lamp: it would ring.
        mute_on_hook = {**RING, "callLamp": False}
        said = await play(
            one, JABRA, mute_on_hook, ("follow", True, 3, 0), ("lamps", 0), ("only", 0)
        )
        assert said == [None, [], []]
        said = await play(one, JABRA, RING, ("signs", True), ("signs", False))
        assert said == [["off", "ring"], ["off"]]
        said = await play(
            one,
            SILENT,
            {**RING, "sign": "lamp"},
            ("signs", True),
            ("follow", True, 2, 0),
            ("lamps", 0),
            ("lamps", 400),
        )
        assert said == [["off", "lamp"], None, ["message", "off_hook"], ["off_hook"]]
        # Tried between calls: the call lamp burns with it, and both are out after it.
        said = await play(
            one,
            JABRA,
            RING,
            ("follow", False, 0, 0),
            ("tryOut", 10),
            ("lamps", 10),
            ("lamps", 500),
            ("lamps", 3100),
            ("follow", True, 0, 4000),
            ("tryOut", 4001),
            ("lamps", 4001),
        )
        assert said == [None, True, sign, call, [], None, False, call]


async def test_a_call_for_help_is_held_or_pressed_twice_and_not_by_accident(
    tmp_path: Path,
) -> None:
    def press(at: int, held: int = 80, key: str = "flash") -> list[Any]:
        return [("report", {key: 1}, at), ("report", {key: 0}, at + held)]

    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):

        async def helped(*steps: Any, choices: dict[str, Any] = RING) -> int:
            said = await play(one, POLY, choices, ("follow", True, 0, 0), *steps)
            return sum(what == ["help"] for what in said)

        assert await helped(*press(1000)) == 0, "one short press"
        assert await helped(*press(1000), *press(1050)) == 0, "one press that is sent twice"
        assert await helped(*press(1000), *press(2000)) == 1, "twice"
        assert await helped(*press(1000), *press(4000)) == 0, "twice, far apart"
        assert await helped(("report", {"flash": 1}, 1000), ("tick", 1999)) == 0
        assert await helped(("report", {"flash": 1}, 1000), ("tick", 2000), ("tick", 3000)) == 1
        assert await helped(("report", {"flash": 1}, 1000), ("next", 1400)) == 0
        many = [step for at in range(1000, 5000, 400) for step in press(at)]
        assert await helped(*many) == 1, "an anxious hand"
        twice = [*press(1000), *press(2000)]
        assert await helped(*twice, choices={**RING, "helpKey": ""}) == 0, "not switched on"
        assert await helped(*twice, choices={**RING, "helpKey": "redial"}) == 0, "another key"
        assert await helped(("follow", False, 0, 500), *twice) == 0, "no call"
        for key in ("hook", "mute"):
            pressed = [*press(1000, key=key), *press(2000, key=key)]
            assert await helped(*pressed) == 0, key
        said = await play(one, JABRA, RING, ("keys",))
        assert sorted(said[0]) == ["flash", "programmable", "speed_dial", "voice_mail"]
        said = await play(one, SILENT, RING, ("keys",))
        assert sorted(said[0]) == ["flash", "hook"], "a hook that is a button can be held"


async def test_the_mute_lamp_says_what_the_headset_says_and_no_write_undoes_a_mute(
    tmp_path: Path,
) -> None:
    asked, on, off = ("report", {"mute": 1}, 1000), ("lamps", 2000), ("lamps", 2500)
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        # A switch states where it is; the lamp follows.
        said = await play(
            one,
            SILENT,
            {**RING, "sign": "off"},
            ("mute",),
            ("follow", True, 0, 0),
            ("report", {"mute": 1}, 10),
            ("mute",),
            ("lamps", 10),
            ("report", {"mute": 1}, 20),
            ("report", {"mute": 0}, 30),
            ("lamps", 30),
        )
        assert said == [
            *["unknown", None, [], "on", ["mute", "off_hook"]],
            *[[], ["mute"], ["off_hook"]],
        ]
        # A key that asks the host: nobody can mute here, so nothing is said to be muted.
        call = ("follow", True, 0, 0)
        said = await play(one, JABRA, RING, call, asked, asked, ("mute",), ("lamps", 1000))
        assert said[1:] == [["mute_asked"], [], "unknown", ["off_hook"]]
        # In Jabra's one report the sign would write the mute bit: it waits for the next call.
        risk, calm = ("follow", True, 2, 2000), ("follow", False, 0, 3000)
        again = ("follow", True, 2, 4000)
        said = await play(
            one, JABRA, RING, call, asked, risk, on, off, calm, again, ("lamps", 4000)
        )
        assert (said[3], said[4], said[7]) == (["off_hook"], ["off_hook"], ["off_hook", "ring"])
        # Poly's lamps have reports of their own: the sign touches no other.
        said = await play(one, POLY, RING, call, asked, risk, on, ("only", 2000))
        assert said[3:] == [["off_hook", "ring"], ["off_hook", "ring"]]
        # A page that is loaded anew in a call does not know: it writes nothing beside the bit.
        said = await play(
            one,
            JABRA,
            RING,
            call,
            ("only", 0),
            risk,
            ("only", 2000),
            calm,
            ("only", 3000),
            resumed=True,
        )
        assert [said[1], said[3], said[5]] == [[], [], ["off_hook", "ring"]]
        said = await play(one, POLY, RING, call, ("only", 0), resumed=True)
        assert said[1] == ["off_hook", "ring"]
