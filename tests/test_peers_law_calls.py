"""Calls under every preset of law, from one real telephone to another: what the caller heard, in
which order, and that nothing was analysed before.

All calls are made at the same time by one fixture; each test looks at what is left of some of them:
the caller's own recording, the packets on the wire, the frames that went to the detector, the
events of the agent's console, and the recording.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callshield.heard import find
from callshield.law_presets import load_preset, preset_ids
from callshield.settings_notice import NoticeSettings
from sipbridge.prompt_catalogue import SHIPPED, load_prompt
from tests.detector_sounds import shouting_voice
from tests.mentions import mentioned
from tests.peers.capture import Packet
from tests.peers.law_floor import (
    Floor,
    Line,
    Played,
    capturing_callers,
    clip,
    heard_again,
    in_order,
    last_packet_ts,
    running_floor,
    sent_to_callers,
    sound_of,
)
from tests.peers.sound import RATE, blocks, purity, write_tone, write_wav
from tests.test_peers_recording import command, export

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

#: What a caller has to hear under each preset, and nothing else, before anything is analysed.
NOTICES = {
    "kr-private": ["abuse_prevention", "recording"],
    "kr-public": ["abuse_prevention", "recording"],
    "kr-finance": ["abuse_prevention", "recording"],
    "jp": ["abuse_prevention", "recording"],
    "cn": ["abuse_prevention", "recording"],
    "us-all-party": ["recording_analysis"],
    "us-one-party": ["recording_analysis"],
    "eu": ["abuse_prevention_objection", "recording"],
}
LANGUAGES = {"kr": "ko", "jp": "ja", "cn": "zh", "us": "en", "eu": "en"}
#: What asks for consent in the stead of ``recording_analysis``.
CONSENT = "recording_analysis_consent"
WARNINGS = ["warning_1", "warning_2", "warning_3"]
AGENT_HZ = 1600.0
#: For a key of the caller's: longer than a busy machine needs to press one.
WINDOW_S = 30.0
#: Korea's relay service, and the police.
RELAY, EMERGENCY = "107", "112"
#: Longer than a shouting voice needs to level 2, where nothing of it is to be judged.
SHOUTED_S = 6.0

MANAGER = '[supervisors.kim]\nuri = "{manager}"\nrole = "manager"\n'


def language_of(preset: str) -> str:
    return LANGUAGES[preset.partition("-")[0]]


# ------------------------------------------------------------------------------------ the calls


async def whole_call(floor: Floor) -> Played:
    """The notice, a hold by the agent, the three warnings, a call for help, the end."""
    async with floor.node.watch("1001") as console:
        line = Line(floor, "1001", await floor.caller("01000000001"), console)
        await line.dial()
        if (await line.wait("notice.finished"))["waits"]:
            await line.wait("protection.changed")
        await line.wait("tap.started")
        await line.look("connected")
        await asyncio.sleep(0.8)  # the agent speaks: three blocks of it at least are heard alone
        await line.phone.command("hold")
        await line.wait("hold.changed", held=True)
        await line.phone.command("resume")
        await line.wait("hold.changed", held=False)
        for grade in (1, 2, 3):
            assert await line.press("warn") == 200
            await line.wait("warning.played", grade=grade)
        await line.press("help")
        assert await line.press("end") == 200
        return await line.over()


async def handed_over(floor: Floor) -> Played:
    """The caller is put on hold during the notice, and later handed over to a manager."""
    async with floor.node.watch("1002") as console:
        line = Line(floor, "1002", await floor.caller("01000000002"), console)
        await line.dial()
        await line.wait("notice.started")
        await asyncio.sleep(1.5)  # the caller hears the beginning
        await line.telephone.command("hold")
        await line.wait("hold.changed", held=True)
        await asyncio.sleep(0.5)  # nobody hears anything
        await line.telephone.command("resume")
        if (await line.wait("notice.finished"))["waits"]:
            await line.wait("protection.changed")
        await line.wait("tap.started")
        assert await line.press("hand_over") == 200
        await line.wait("helper.changed", state="took_over")
        await line.told("handed_over")
        await asyncio.sleep(1.0)  # they talk
        await line.telephone.command("hangup")
        return await line.over()


async def skipped(floor: Floor) -> Played:
    """The agent's emergency key, and a warning after it."""
    async with floor.node.watch("1003") as console:
        line = Line(floor, "1003", await floor.caller("01000000003"), console)
        await line.dial()
        await line.wait("notice.started")
        await asyncio.sleep(2.0)  # the caller hears the beginning
        before = time.time()
        assert await line.press("skip_notice") == 200
        await line.wait("notice.finished")
        line.cut_between = before, time.time()
        await line.look("connected")
        assert await line.press("warn") == 200
        await line.wait("warning.played")
        await line.told("warning_1")
        await line.telephone.command("hangup")
        return await line.over()


async def gone(floor: Floor) -> Played:
    """The caller hangs up in the middle of the notice."""
    async with floor.node.watch("1003") as console:
        line = Line(floor, "1003", await floor.caller("01000000004"), console)
        await line.dial()
        await line.wait("notice.started")
        await asyncio.sleep(2.0)  # the caller hears the beginning
        before = time.time()
        await line.telephone.command("hangup")
        await line.wait("prompt.played")  # the stamp of what was cut off comes behind the end
        line.cut_between = before, time.time()
        return await line.over()


def objecting(number: str, agent: str, *, during: bool) -> Callable[[Floor], Awaitable[Played]]:
    """The caller presses 9, while the notice plays or after it; the agent presses every button."""

    async def call(floor: Floor) -> Played:
        async with floor.node.watch(agent) as console:
            line = Line(floor, agent, await floor.caller(number), console)
            await line.dial()
            await line.wait("notice.started")
            if during:
                await asyncio.sleep(2.0)  # the caller hears the beginning
                await line.telephone.press("9")
                await line.wait("notice.finished")
            else:
                await line.wait("notice.finished")
                await line.telephone.press("9")
                await line.wait("protection.changed")
            await line.wait("prompt.played")
            await line.look("objected")
            await line.press("help")
            await line.press("warn")
            await line.wait("warning.played")
            await line.press("end")
            return await line.over()

    return call


def asked(number: str, agent: str, digit: str) -> Callable[[Floor], Awaitable[Played]]:
    """The notice asks for the caller's consent by 1; then the agent wants it recorded."""

    async def call(floor: Floor) -> Played:
        async with floor.node.watch(agent) as console:
            line = Line(floor, agent, await floor.caller(number), console)
            await line.dial()
            await line.wait("notice.finished")
            await line.look("asked")
            if digit:
                await line.telephone.press(digit)
            await line.wait("protection.changed")
            await line.look("decided")
            await line.press("start_recording")
            if digit:
                await line.wait("recording.changed", state="recording")
                await asyncio.sleep(1.0)  # what is recorded
            await line.press("help")
            await line.press("warn")
            await line.wait("warning.played")
            await line.press("end")
            return await line.over()

    return call


def abused(
    number: str, agent: str, *, automatic: bool = False, header: str = ""
) -> Callable[[Floor], Awaitable[Played]]:
    """The caller shouts, and the agent says that it is severe abuse; then a warning, which plays by
    itself or is pressed.

    Args:
        number: of the caller.
        agent: whom it is for.
        automatic: a warning is to play by itself.
        header: of the INVITE; such a caller says nothing.
    """

    async def call(floor: Floor) -> Played:
        async with floor.node.watch(agent) as console:
            caller = (
                await floor.scripted(number)
                if header
                else await floor.caller(number, says="shouts")
            )
            line = Line(floor, agent, caller, console)
            if header:
                await line.dial(header)
                await line.wait("notice.finished")
            else:
                await line.dial()
                await line.wait("tap.started")
                if number == RELAY:
                    await asyncio.sleep(SHOUTED_S)  # the detector could hear it
                else:
                    await line.wait("risk.changed", level=2)
            assert await line.press("abusive") == 200
            await line.wait("risk.changed", level=3)
            if not automatic:
                await asyncio.sleep(3.0)  # what follows by itself begins at once
                assert await line.press("warn") == 200
            await line.wait("warning.played")
            await line.press("end")
            return await line.over()

    return call


@dataclass(frozen=True)
class Centre:
    """A floor and its calls."""

    toml: str
    calls: dict[str, Callable[[Floor], Awaitable[Played]]]
    agents: tuple[str, ...] = ("1001", "1002")
    agent_options: str = ""
    peer_options: str = ""


#: The two calls that are made under every preset.
USUAL = {"whole": whole_call, "handed": handed_over}
#: Under some presets more.
MORE: dict[str, dict[str, Callable[[Floor], Awaitable[Played]]]] = {
    "kr-private": {"skipped": skipped},
    "kr-public": {"gone": gone},
    "eu": {
        "objects": objecting("01000000005", "1003", during=True),
        "objects-late": objecting("01000000006", "1004", during=False),
    },
}


def centres(folder: Path) -> dict[str, Centre]:
    """Every preset as it comes, and one whose operator asks for consent and records on request."""
    keys = folder / "recording.keys"

    def toml(preset: str, more: str = "", recording: str = "") -> str:
        store = folder / f"recordings-{preset}{len(more)}"
        return (
            f'[law]\npreset = "{preset}"\n[recording]\nenabled = true\ndirectory = "{store}"\n'
            f'key_file = "{keys}"\n{recording}{MANAGER}{more}'
        )

    found = {
        preset: Centre(
            toml(preset, f"[notice]\nkey_window_s = {WINDOW_S}\n"),
            USUAL | MORE.get(preset, {}),
            ("1001", "1002", "1003", "1004")[: 2 + 2 * (preset == "eu") + (preset in MORE)],
        )
        for preset in preset_ids()
    }
    found["consent"] = Centre(
        toml(
            "us-all-party",
            f'[notice]\nconsent_key = "1"\nkey_window_s = {WINDOW_S}\n',
            'begin = "on_request"\n',
        ),
        {
            "agrees": asked("01000000007", "1001", "1"),
            "silent": asked("01000000008", "1002", ""),
        },
    )
    found["spared"] = Centre(
        toml(
            "kr-public",
            f'[callers]\nrelay_services = ["{RELAY}"]\nnever_automatic = ["{EMERGENCY}"]\n'
            '[notice]\nprompts = ["recording_analysis"]\n'
            '[teams.north]\nsupervisors = ["kim"]\n'
            "[teams.north.policy]\nautomatic_warnings = true\n",
        ),
        {
            "relay": abused(RELAY, "1001"),
            "emergency": abused(EMERGENCY, "1002"),
            "ordinary": abused("01000000009", "1003", automatic=True),
            "vulnerable": abused("01000000010", "1004", header="X-Callshield-Vulnerable: yes"),
            "marked-no": abused(
                "01000000011", "1005", automatic=True, header="X-Callshield-Vulnerable: no"
            ),
        },
        ("1001", "1002", "1003", "1004", "1005"),
        'team = "north"',
        "attests_notice = true",
    )
    return found


@dataclass
class Everything:
    """What is left of all calls."""

    calls: dict[tuple[str, str], Played | BaseException]
    packets: list[tuple[tuple[str, int], Packet]]
    recordings: dict[tuple[str, str], dict[str, Any]]
    """The JSON beside an exported recording."""

    def of(self, floor: str, call: str) -> Played:
        found = self.calls[floor, call]
        if isinstance(found, BaseException):
            raise AssertionError(f"the call {floor}/{call} failed: {found}") from found
        return found

    def to(self, played: Played) -> list[Packet]:
        """What a call's caller was sent."""
        at, first, last = played.media_at
        return [
            packet
            for (address, port), packet in self.packets
            if address == at and first <= port <= last
        ]


async def play_all(folder: Path) -> Everything:
    """Start every centre, make every call at the same time, and stop."""
    (folder / "key.toml").write_text(
        f'[recording]\nenabled = true\nkey_file = "{folder / "recording.keys"}"\n', "utf-8"
    )
    made = await asyncio.to_thread(command, folder / "key.toml", "new-key")
    assert made.returncode == 0, made.stderr
    voices = {
        "little": write_tone(folder / "little.wav", 700.0, 200, 0.001),
        "agent": write_tone(folder / "agent.wav", AGENT_HZ, 200, 0.05),
        "shouts": write_wav(folder / "shouts.wav", shouting_voice(60.0)),
    }
    floors = centres(folder)
    left = Everything({}, [], {})
    ready = asyncio.Barrier(len(floors))
    starting = asyncio.Semaphore(2)

    async def open_floor(number: int, name: str, centre: Centre) -> None:
        context = running_floor(
            folder / name,
            name,
            number,
            centre.toml,
            voices,
            agents=centre.agents,
            agent_options=centre.agent_options,
            peer_options=centre.peer_options,
        )
        try:
            async with starting:
                floor = await context.__aenter__()
        except BaseException:
            await ready.abort()
            raise
        try:
            await ready.wait()
            played = await asyncio.gather(
                *(call(floor) for call in centre.calls.values()), return_exceptions=True
            )
            for call, result in zip(centre.calls, played, strict=True):
                left.calls[name, call] = result
                if isinstance(result, Played) and result.seen("recording.changed"):
                    _, left.recordings[name, call] = await export(floor.node, result.call_id)
        finally:
            await context.__aexit__(None, None, None)

    async with capturing_callers(folder / "callers.pcapng", len(floors)) as capture:
        async with asyncio.TaskGroup() as group:
            for number, (name, centre) in enumerate(floors.items()):
                group.create_task(open_floor(number, name, centre))
        left.packets = await sent_to_callers(capture)
    return left


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    return asyncio.run(play_all(tmp_path_factory.mktemp("law")))


# ------------------------------------------------------------------------------------ the tests


def test_every_preset_is_played() -> None:
    assert sorted(NOTICES) == preset_ids()


@pytest.mark.parametrize("preset", preset_ids())
def test_the_caller_hears_notice_warnings_and_closing_whole_and_in_order(
    everything: Everything, preset: str
) -> None:
    played = everything.of(preset, "whole")
    language = language_of(preset)
    assert played.language == language
    found = in_order(played.heard, language, [*NOTICES[preset], *WARNINGS, "closing"])
    # None of the notice a second time, whatever was held, warned or ended meanwhile.
    end_s = found[len(NOTICES[preset]) - 1].end_s
    assert heard_again(played.heard, language, NOTICES[preset], end_s) == []
    # The agent's steady tone is heard after the notice, and never in it.
    before, after = played.heard[: int((end_s - 0.3) * RATE)], played.heard[int(end_s * RATE) :]
    assert max(purity(block, AGENT_HZ) for block in blocks(before)) < 0.5
    assert max(purity(block, AGENT_HZ) for block in blocks(after)) > 0.9
    assert played.one("call.ended")["reason"] == "ended_with_announcement"
    assert played.pressed == {"warn": 200, "help": 200, "end": 200}


@pytest.mark.parametrize("call", USUAL)
@pytest.mark.parametrize("preset", preset_ids())
def test_the_first_frame_is_tapped_after_the_last_packet_of_the_notice(
    everything: Everything, preset: str, call: str
) -> None:
    played = everything.of(preset, call)
    told_ts = notice_over_ts(everything, played, NOTICES[preset])
    assert played.tapped_ts, "nothing was analysed at all"
    assert played.tapped_ts[0] > told_ts
    waits = bool(everything_of_notice(preset).objection_key)
    assert played.one("notice.finished")["waits"] is waits
    if waits:  # the caller could still press
        assert played.tapped_ts[0] >= told_ts + WINDOW_S - 0.1
        assert played.one("protection.changed")["reason"] == "no_objection"


def everything_of_notice(preset: str) -> NoticeSettings:
    """``[notice]`` as the preset has it."""
    defaults = {
        key.removeprefix("notice."): value
        for key, value in load_preset(preset).defaults.items()
        if key.startswith("notice.")
    }
    return NoticeSettings.model_validate(defaults)


def notice_over_ts(everything: Everything, played: Played, notice: list[str]) -> float:
    """When the last packet of the notice was sent: of the one that was heard whole."""
    packets = everything.to(played)
    for held in played.seen("hold.changed"):
        started = min(stamp["started_ts"] for stamp in played.one("notice.finished")["prompts"])
        if not held["held"] and held["ts"] <= started:
            packets = [packet for packet in packets if packet.at_s > held["ts"]]
    return last_packet_ts(packets, played.language, notice)


@pytest.mark.parametrize("preset", preset_ids())
def test_a_hold_begins_the_notice_anew_and_a_hand_over_repeats_none(
    everything: Everything, preset: str
) -> None:
    played, notice = everything.of(preset, "handed"), NOTICES[preset]
    held, back = played.seen("hold.changed")
    packets = everything.to(played)
    cut = sound_of([packet for packet in packets if packet.at_s < held["ts"]])
    first = find(clip(played.language, notice[0]), cut)
    assert first is not None
    assert not first.whole, "the hold was to come in the middle of it"
    rest = sound_of([packet for packet in packets if packet.at_s > back["ts"]])
    found = in_order(rest, played.language, [*notice, "handing_over", "handed_over"])
    end_s = found[len(notice) - 1].end_s
    assert heard_again(rest, played.language, notice, end_s) == []
    # The record tells both: what was cut off, and how far it got.
    begun = played.stamps()[0]
    assert (begun["prompt_id"], begun["complete"], begun["stopped_by"]) == (
        notice[0],
        False,
        "hold",
    )
    assert 0.5 < begun["finished_ts"] - begun["started_ts"] < begun["length_s"] - 1
    whole = [stamp["prompt_id"] for stamp in played.stamps() if stamp["complete"]]
    assert whole == [*notice, "handing_over", "handed_over"]


@pytest.mark.parametrize("preset", preset_ids())
def test_every_announcement_is_stamped_with_the_file_that_was_heard(
    everything: Everything, preset: str
) -> None:
    played, law = everything.of(preset, "whole"), load_preset(preset)
    stamps = played.stamps()
    expected = [*NOTICES[preset], *WARNINGS, "closing"]
    assert [stamp["prompt_id"] for stamp in stamps] == expected
    for stamp in stamps:
        prompt = load_prompt(SHIPPED, played.language, stamp["prompt_id"])
        file = SHIPPED / played.language / f"{stamp['prompt_id']}.wav"
        assert stamp["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (stamp["version"], stamp["language"]) == (prompt.version, played.language)
        assert (stamp["complete"], stamp["stopped_by"]) == (True, "")
        lasted_s = stamp["finished_ts"] - stamp["started_ts"]
        assert lasted_s == pytest.approx(stamp["length_s"], abs=0.1)
        assert stamp["length_s"] == pytest.approx(prompt.duration_s, abs=0.001)
    notice = stamps[: len(NOTICES[preset])]
    assert all(one["version"] in law.notice.versions[one["prompt_id"]] for one in notice)
    assert set(law.notice.names) <= {name for stamp in notice for name in stamp["names"]}
    assert any(stamp["purposes"] for stamp in notice)


@pytest.mark.parametrize("preset", preset_ids())
def test_the_recording_carries_its_own_proof(everything: Everything, preset: str) -> None:
    played = everything.of(preset, "whole")
    about = everything.recordings[preset, "whole"]
    assert about["notice"]["source"] == "played"
    assert about["notice"]["key"] == ""
    # What comes last, the closing, is over before the file is.
    kept = [(one["prompt_id"], one["version"], one["sha256"]) for one in about["announcements"]]
    told = [(one["prompt_id"], one["version"], one["sha256"]) for one in played.stamps()]
    assert kept == told
    heard = [one for one in about["announcements"] if one["prompt_id"] in NOTICES[preset]]
    # The file begins when its first frame was due, which is before it came where the machine is
    # behind. A recorder that had not waited would be seconds early: the notice is as long.
    assert all(one["complete"] and one["finished_s"] <= 0.5 for one in heard)
    assert all(one["length_s"] > 1 for one in heard)
    assert not mentioned("1001", json.dumps(about)), "nobody is named in it"


def was_cut_off_then(played: Played, stamp: dict[str, Any]) -> bool:
    """Whether a stamp says that its announcement was heard for a while, and until it was cut."""
    heard_s = stamp["finished_ts"] - stamp["started_ts"]
    before, after = played.cut_between
    ended = before - 0.1 <= stamp["finished_ts"] <= after + 0.1
    return ended and 1.0 < heard_s < stamp["length_s"] - 0.1


def test_a_skipped_notice_is_never_tapped_and_the_record_says_how_far_it_got(
    everything: Everything,
) -> None:
    played = everything.of("kr-private", "skipped")
    assert played.one("notice.finished")["source"] == "skipped"
    assert played.tapped_ts == []
    assert played.seen("recording.changed") == []
    assert off(played.views["connected"], "off") == "보호 꺼짐"
    cut, warning = played.stamps()
    assert (cut["prompt_id"], cut["complete"], cut["stopped_by"]) == (
        "abuse_prevention",
        False,
        "skipped",
    )
    assert was_cut_off_then(played, cut)
    assert (warning["prompt_id"], warning["complete"]) == ("warning_1", True)
    in_order(played.heard, "ko", ["warning_1"])


def test_a_caller_who_hangs_up_in_the_notice_leaves_a_stamp_after_the_end(
    everything: Everything,
) -> None:
    played = everything.of("kr-public", "gone")
    assert played.seen("notice.finished") == []
    assert played.tapped_ts == []
    (cut,) = played.stamps()
    assert (cut["prompt_id"], cut["complete"], cut["stopped_by"]) == (
        "abuse_prevention",
        False,
        "hangup",
    )
    assert was_cut_off_then(played, cut)
    kinds = [event["type"] for event in played.events]
    assert kinds.index("call.ended") < kinds.index("prompt.played")


@pytest.mark.parametrize(("call", "source"), [("objects", "objected"), ("objects-late", "played")])
def test_an_objection_switches_protection_off_and_leaves_the_agent_every_button(
    everything: Everything, call: str, source: str
) -> None:
    played = everything.of("eu", call)
    finished = played.one("notice.finished")
    assert finished["source"] == source
    decided = finished if source == "objected" else played.one("protection.changed")
    assert decided["key"] == "9"
    assert played.tapped_ts == []
    assert played.seen("recording.changed") == []
    in_order(played.heard, "en", ["objection_accepted", "warning_1", "closing"])
    assert played.pressed == {"help": 200, "warn": 200, "end": 200}
    view = played.views["objected"]
    assert off(view, view["choice"] or "off").startswith("보호 꺼짐")
    if source == "objected":
        cut = played.stamps()[0]
        assert (cut["complete"], cut["stopped_by"]) == (False, "objection")


def off(view: dict[str, Any], says: str) -> str:
    """What the Korean console shows for a call that is not analysed."""
    assert (view["tapped"], view["waits"]) == (False, False)
    strings = (ROOT / "notifier" / "console" / "strings.ko.js").read_text(encoding="utf-8")
    shown = re.search(rf'"protection\.{says}": "([^"]+)"', strings)
    assert shown is not None
    return shown[1]


def test_analysis_and_recording_begin_with_the_callers_key_and_not_before(
    everything: Everything,
) -> None:
    played = everything.of("consent", "agrees")
    assert played.views["asked"]["waits"]
    asked_ts = notice_over_ts(everything, played, [CONSENT])
    chosen = played.one("protection.changed")
    assert (chosen["protected"], chosen["reason"], chosen["key"]) == (True, "consent", "1")
    assert asked_ts < played.tapped_ts[0]
    assert chosen["ts"] - 0.1 < played.tapped_ts[0]
    # Recording was asked for by the agent: the caller hears so first.
    assert played.pressed["start_recording"] == 200
    told = in_order(played.heard, "en", [CONSENT, "recording", "warning_1", "closing"])
    recording = next(one for one in played.stamps() if one["prompt_id"] == "recording")
    begun = next(e for e in played.seen("recording.changed") if e["state"] == "recording")
    assert recording["complete"]
    assert begun["ts"] >= recording["finished_ts"] - 0.05
    assert told[1].start_s > told[0].end_s
    about = everything.recordings["consent", "agrees"]
    assert (about["notice"]["key"], about["notice"]["choice"]) == ("1", "consent")
    before = [one["prompt_id"] for one in about["announcements"] if one["finished_s"] <= 0.05]
    assert before == [CONSENT, "recording"]


def test_without_the_key_the_call_goes_on_untapped_and_the_agent_sees_it(
    everything: Everything,
) -> None:
    played = everything.of("consent", "silent")
    assert played.tapped_ts == []
    assert played.seen("recording.changed") == []
    chosen = played.one("protection.changed")
    assert (chosen["protected"], chosen["reason"], chosen["key"]) == (False, "no_consent", "")
    assert off(played.views["decided"], "no_consent") == "보호 꺼짐 (고객 미동의)"
    # Every button works but the one that needs what the caller did not give.
    assert played.pressed == {"start_recording": 409, "help": 200, "warn": 200, "end": 200}
    in_order(played.heard, "en", [CONSENT, "warning_1", "closing"])
    assert heard_again(played.heard, "en", ["recording"], 0.0) == []


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("relay", "relay_service"),
        ("emergency", "never_automatic"),
        ("vulnerable", "vulnerable"),
    ],
)
def test_nothing_happens_by_itself_to_callers_who_are_spared(
    everything: Everything, call: str, kind: str
) -> None:
    played = everything.of("spared", call)
    assert played.one("call.started")["spared"] == kind
    levels = {event["level"] for event in played.seen("risk.changed")}
    # Of a relay's operator no sound is judged: the agent's own word alone raises the level.
    assert levels == ({1, 2, 3} if kind == "never_automatic" else {3})
    # A person's press works, and nothing came before it.
    assert played.pressed == {"abusive": 200, "warn": 200, "end": 200}
    assert [stamp["prompt_id"] for stamp in played.stamps()] == [
        "recording_analysis",
        "warning_1",
        "closing",
    ]


@pytest.mark.parametrize("call", ["ordinary", "marked-no"])
def test_somebody_else_is_judged_and_warned_by_itself(everything: Everything, call: str) -> None:
    """Negative control of the test above: the same sounds and presses, another number or mark."""
    played = everything.of("spared", call)
    levels = [event["level"] for event in played.seen("risk.changed")]
    assert (2 in levels) is (call == "ordinary")
    assert levels[-1] == 3
    assert "warn" not in played.pressed
    assert [stamp["prompt_id"] for stamp in played.stamps()][:2] == [
        "recording_analysis",
        "warning_1",
    ]


# ------------------------------------------------------------------------------------- controls


def test_a_skipped_notice_is_not_judged_whole(everything: Everything) -> None:
    played = everything.of("kr-private", "skipped")
    with pytest.raises(AssertionError, match="abuse_prevention"):
        in_order(played.heard, "ko", NOTICES["kr-private"])


@pytest.mark.parametrize("preset", preset_ids())
def test_a_notice_cut_by_300_ms_is_not_judged_whole(everything: Everything, preset: str) -> None:
    played, notice = everything.of(preset, "whole"), NOTICES[preset]
    for prompt_id in notice:
        one = clip(played.language, prompt_id)
        said = np.flatnonzero(np.abs(one) > 0.02 * np.abs(one).max())
        (heard,) = in_order(played.heard, played.language, [prompt_id])
        for first, last in ((0.0, -0.3), (0.3, 0.0)):
            begin = int((heard.start_s + first) * RATE) + int(said[0])
            end = int((heard.start_s + last) * RATE) + int(said[-1])
            cut = played.heard[max(begin, 0) : end]
            found = find(one, cut)
            assert found is None or not found.whole, (prompt_id, first, last)
    # The same judge, of the same stretch uncut.
    assert in_order(played.heard, played.language, notice)


@pytest.mark.parametrize("preset", preset_ids())
def test_another_presets_notice_is_not_found_in_a_call(everything: Everything, preset: str) -> None:
    played = everything.of(preset, "whole")
    others = {
        (language_of(other), prompt_id)
        for other, notice in NOTICES.items()
        for prompt_id in notice
        if (language_of(other), prompt_id)
        not in {(played.language, one) for one in NOTICES[preset]}
    }
    assert others
    for language, prompt_id in sorted(others):
        with pytest.raises(AssertionError, match=prompt_id):
            in_order(played.heard, language, [prompt_id])


def test_the_wrong_order_is_seen(everything: Everything) -> None:
    played = everything.of("kr-private", "whole")
    with pytest.raises(AssertionError):
        in_order(played.heard, "ko", ["recording", "abuse_prevention"])


def test_a_tap_that_began_in_the_notice_would_be_seen(everything: Everything) -> None:
    played = everything.of("kr-private", "whole")
    told_ts = notice_over_ts(everything, played, NOTICES["kr-private"])
    length_s = len(clip("ko", "recording")) / RATE
    # The frames of a tap that opened with the second announcement instead of after it.
    assert played.tapped_ts[0] - length_s < told_ts
    # Nor is the judge right for being late: of many calls one is not held up by the machine.
    late_s = [
        one.tapped_ts[0] - notice_over_ts(everything, one, NOTICES[preset])
        for preset in preset_ids()
        if not everything_of_notice(preset).objection_key
        for one in (everything.of(preset, call) for call in USUAL)
    ]
    assert min(late_s) < 1.0
