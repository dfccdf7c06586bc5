"""Ways to listen or record at the PBX, found in what real Asterisks said of themselves.

``tests/pbx_samples/asterisk-16.txt`` and ``-22.txt`` are answers of the manager interface of
Asterisk 16.28 and 22.10 (Debian), with spies put into their configuration on purpose; each answer
stands under a line ``> ACTION ARGUMENT``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from callshield.errors import CallshieldError
from callshield.findings import Finding, Verdict
from notifier.pbx_listening import (
    FILES,
    Entry,
    Ourselves,
    Running,
    Section,
    Snapshot,
    by_hand,
    judge,
)
from notifier.pbx_listening_ways import WAYS, modules_of_interest
from notifier.pbx_survey import read_config, survey

SAMPLES = Path(__file__).parent / "pbx_samples"
OURS = Ourselves(addresses=("127.0.44.2",))


@dataclass(frozen=True)
class Said:
    lines: tuple[tuple[str, str], ...]

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.lines if key == name), default)


@dataclass(frozen=True)
class Reply:
    response: Said
    items: tuple[Said, ...] = ()

    @property
    def ok(self) -> bool:
        return self.response.get("Response") == "Success"

    @property
    def text(self) -> str:
        return self.response.get("Message")


def _said(packet: str) -> Said:
    pairs = [line.partition(":") for line in packet.splitlines() if ":" in line]
    return Said(tuple((name, value.strip()) for name, _, value in pairs))


@dataclass
class RecordedPbx:
    """Answers as a real one did; some actions may be refused or fail."""

    sample: str
    refused: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    async def request(self, action: str, fields: Sequence[tuple[str, str]] = ()) -> Reply:
        question = " ".join([action, *(value for _, value in fields)])
        self.asked.append(question)
        if action in self.lost:
            raise CallshieldError("the connection was lost")
        if action in self.refused:
            # The words of Asterisk 16 and 22.
            return Reply(_said("Response: Error\nMessage: Permission denied"))
        text = (SAMPLES / f"asterisk-{self.sample}.txt").read_text(encoding="utf-8")
        body = text.partition(f"\n> {question}\n")[2].partition("\n> ")[0]
        packets = [_said(packet) for packet in body.strip().split("\n\n")]
        events = [packet for packet in packets[1:] if not packet.get("EventList")]
        return Reply(packets[0], tuple(events))


async def snapshot(sample: str, **options: tuple[str, ...]) -> Snapshot:
    return await survey(RecordedPbx(sample, **options), lambda _text: None)


def found(pbx: Snapshot, ours: Ourselves = OURS) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(pbx, ours)}


def silent(pbx: Snapshot) -> Snapshot:
    """The same PBX as its operator leaves it when he has done what he was told."""
    return Snapshot(
        modules=pbx.modules - {"app_chanspy", "res_stasis_snoop", "res_monitor"},
        dialplan=tuple(
            entry
            for entry in pbx.dialplan
            if entry.context != "supervisors" and entry.application != "MixMonitor"
        ),
        files={
            **pbx.files,
            "features.conf": (),
            "queues.conf": (),
            "manager.conf": tuple(s for s in pbx.files["manager.conf"] if s.name == "callshield"),
        },
    )


@pytest.mark.parametrize("sample", ["16", "22"])
async def test_a_real_pbx_with_spies_has_each_of_them_named_with_its_place(sample: str) -> None:
    named = found(await snapshot(sample))
    problems = {name for name, finding in named.items() if not finding.ok}
    assert problems == {
        "ChanSpy, ExtenSpy",
        "MixMonitor",
        "recording by feature code",
        "queue that records",
        "manager users (AMI)",
    }
    spy = named["ChanSpy, ExtenSpy"]
    assert spy.detail.startswith(
        "dialplan supervisors,*56,2 ExecIf; supervisors,_*55X.,1 ChanSpy:"
    ) or spy.detail.startswith("dialplan supervisors,_*55X.,1 ChanSpy; supervisors,*56,2 ExecIf:")
    assert "nobody hears a live call in secret" in spy.detail
    assert "likely wiretapping under the Protection of Communications Secrets Act" in spy.detail
    assert "noload=app_chanspy.so" in spy.advice
    assert "from-pstn,602,2 MixMonitor, with no notice before it" in named["MixMonitor"].detail
    codes = named["recording by feature code"].detail
    assert "automixmon=*3, open in dialplan supervisors,*57,1 Dial" in codes
    assert "[support] monitor-format=wav" in named["queue that records"].detail
    managers = named["manager users (AMI)"].detail
    assert "switchboard: write=" in managers
    assert "originate" in managers
    assert "callshield" not in managers  # needs system and call, and has no more


@pytest.mark.parametrize("sample", ["16", "22"])
async def test_the_same_pbx_without_them_has_nothing_to_say(sample: str) -> None:
    """Negative control: Asterisk's own dialplan holds a ChanSpy, which is nobody's."""
    findings = judge(silent(await snapshot(sample)), OURS)
    assert [finding.verdict for finding in findings] == [Verdict.OK], findings
    assert "none found" in findings[0].detail


async def test_no_secret_survives_the_survey() -> None:
    pbx = await snapshot("22")
    assert "not-a-real-one" not in repr(pbx)
    assert "CHANGE-ME" not in repr(pbx)
    assert "not-a-real-one" not in repr(judge(pbx, OURS))


async def test_what_is_refused_is_said_and_the_rest_still_judged() -> None:
    pbx = RecordedPbx("16", refused=("ShowDialPlan",), lost=("CoreShowChannels",))
    named = found(await survey(pbx, lambda _text: None))
    unread = named["not asked"]
    assert unread.verdict is Verdict.NOTE
    assert unread.detail == (
        "channels: the connection was lost; dialplan: ShowDialPlan is refused to this manager user"
    )
    assert "write=system,reporting" in unread.advice
    assert not named["queue that records"].ok
    # Each way that may hide there comes with a command to look by hand.
    assert "dialplan show" in named["Dictate"].advice
    assert "dialplan show" in named["MixMonitor"].advice
    # With anything unread nobody may read "none found".
    assert "listening and recording at the PBX" not in named


async def test_the_survey_asks_only_what_the_two_classes_allow() -> None:
    """``system`` and ``reporting``; Asterisk says so itself (``manager show command``)."""
    pbx = RecordedPbx("16")
    await survey(pbx, lambda _text: None)
    actions = {question.split(" ")[0] for question in pbx.asked}
    assert actions == {"ModuleCheck", "CoreShowChannels", "GetConfig", "ShowDialPlan"}
    assert {q.split(" ")[1] for q in pbx.asked if q.startswith("GetConfig")} == set(FILES)
    assert {q.split(" ")[1] for q in pbx.asked if q.startswith("Module")} == set(
        modules_of_interest()
    )


def plan(*lines: str) -> tuple[Entry, ...]:
    """``context,extension,priority,Application(data)`` each."""
    entries = []
    for line in lines:
        context, extension, priority, rest = line.split(",", 3)
        application, _, data = rest.partition("(")
        entries.append(Entry(context, extension, priority, application, data.removesuffix(")")))
    return tuple(entries)


def conf(**sections: str) -> tuple[Section, ...]:
    """Sections of ``key=value`` pairs separated by ``;``."""
    return tuple(
        Section(name, tuple((k, v) for k, _, v in (p.partition("=") for p in text.split(";"))))
        for name, text in sections.items()
    )


ARI = frozenset({"res_ari_channels", "res_stasis_snoop"})
GOOD = conf(callshield="type=endpoint;direct_media=no", other="type=identify;endpoint=callshield")


@pytest.mark.parametrize(
    ("pbx", "name", "verdict", "detail"),
    [
        (
            Snapshot(dialplan=plan("a,1,1,ChanSpy(,q)")),
            "ChanSpy, ExtenSpy",
            "problem",
            "a,1,1 ChanSpy",
        ),
        (
            Snapshot(dialplan=plan("a,1,1,Originate(PJSIP/9,app,ExtenSpy,1001)")),
            "ChanSpy, ExtenSpy",
            "problem",
            "Originate",
        ),
        (Snapshot(modules=frozenset({"app_chanspy"})), "ChanSpy, ExtenSpy", "note", "is loaded"),
        (
            Snapshot(channels=(Running("PJSIP/boss-1", "ChanSpy"),)),
            "ChanSpy, ExtenSpy",
            "problem",
            "running NOW on PJSIP/boss-1",
        ),
        (Snapshot(dialplan=plan("a,1,1,Monitor(wav,x)")), "Monitor", "problem", "a,1,1 Monitor"),
        (Snapshot(dialplan=plan("a,1,1,Dictate()")), "Dictate", "problem", "a,1,1 Dictate"),
        (
            Snapshot(dialplan=plan("a,1,1,EAGI(hear.py)")),
            "audio to another program",
            "problem",
            "EAGI",
        ),
        (Snapshot(dialplan=plan("a,1,1,BridgeAdd(PJSIP/1)")), "BridgeAdd", "problem", "a,1,1"),
        (
            Snapshot(dialplan=plan("a,1,1,Set(CONFBRIDGE(bridge,record_conference)=yes)")),
            "recorded or silent conference",
            "problem",
            "a,1,1",
        ),
        (
            Snapshot(files={"confbridge.conf": conf(spy="type=user;quiet=yes;startmuted=yes")}),
            "recorded or silent conference",
            "problem",
            "[spy] quiet and startmuted",
        ),
        (
            Snapshot(dialplan=plan("a,1,1,MeetMe(1,mq)")),
            "recorded or silent conference",
            "problem",
            "MeetMe option mq",
        ),
        (
            Snapshot(files={"features.conf": conf(featuremap="automon=*1")}),
            "recording by feature code",
            "note",
            "no Dial() or Queue() opens it",
        ),
        (
            Snapshot(files={"features.conf": conf(applicationmap="spy=*9,self,ChanSpy,x")}),
            "recording by feature code",
            "problem",
            "[applicationmap] spy => *9,self,ChanSpy,x",
        ),
        (
            Snapshot(modules=ARI, files={"ari.conf": conf(general="enabled=yes", app="type=user")}),
            "ARI snoop and record",
            "problem",
            "ari.conf users app",
        ),
        (
            Snapshot(modules=ARI, files={"ari.conf": conf(app="type=user;read_only=yes")}),
            "ARI snoop and record",
            "note",
            "no ARI user may",
        ),
        (
            Snapshot(files={"manager.conf": conf(callshield="secret=x;write=system,command")}),
            "manager users (AMI)",
            "note",
            "callshield (Callshield's own!): write=command",
        ),
        (
            Snapshot(
                modules=frozenset({"res_monitor", "app_chanspy"}),
                files={"manager.conf": conf(panel="secret=x;write=call")},
            ),
            "Monitor by a manager user",
            "note",
            "panel: write=call",
        ),
        (
            Snapshot(
                files={
                    "pjsip.conf": (
                        *conf(cs="type=endpoint", i="type=identify;endpoint=cs"),
                        Section("i", (("match", "127.0.44.2/32"), ("endpoint", "cs"))),
                    )
                }
            ),
            "audio past Callshield",
            "problem",
            "pjsip.conf [cs]",
        ),
    ],
)
def test_each_way_is_found(pbx: Snapshot, name: str, verdict: str, detail: str) -> None:
    finding = found(pbx)[name]
    assert finding.verdict == verdict, finding
    assert detail in finding.detail
    assert finding.advice


@pytest.mark.parametrize(
    "pbx",
    [
        Snapshot(dialplan=plan("a,1,1,Dial(PJSIP/1,30,tTkKb(pre^s^wx))", "a,1,2,NoOp(ChanSpy)")),
        Snapshot(dialplan=plan("a,1,1,Queue(q,t,,,60)", "a,1,2,Set(X=MixMonitor)")),
        Snapshot(files={"features.conf": conf(featuremap="automon=;atxfer=*2")}),
        Snapshot(files={"queues.conf": conf(support="strategy=rrmemory;monitor-format=")}),
        Snapshot(files={"confbridge.conf": conf(u="type=user;quiet=yes", b="type=bridge")}),
        Snapshot(modules=ARI, files={"ari.conf": conf(general="enabled=no", app="type=user")}),
        Snapshot(modules=ARI),  # without ari.conf there is no ARI
        Snapshot(files={"manager.conf": conf(general="enabled=yes", w="write=all")}),  # no secret
        Snapshot(
            files={"pjsip.conf": (*GOOD, Section("i", (("match", "127.0.44.2"),)))},
        ),
        Snapshot(files={"pjsip.conf": conf(phone="type=endpoint")}),  # not our trunk
    ],
)
def test_what_only_looks_like_it_is_left_alone(pbx: Snapshot) -> None:
    assert [finding.verdict for finding in judge(pbx, OURS)] == [Verdict.OK]


def test_a_recorder_after_the_notice_and_muted_by_the_pause_is_only_a_note() -> None:
    after = Snapshot(
        dialplan=plan(
            "in,600,1,Gosub(callshield-notice,s,1)",
            "in,600,2,MixMonitor(a.wav)",
            "in,600,3,Queue(q)",
        )
    )
    finding = found(after)["MixMonitor"]
    assert finding.verdict is Verdict.NOTE
    assert "muted by the agent's pause" in finding.detail
    assert "Queue" not in finding.detail
    unmuted = found(after, replace(OURS, mutes_mixmonitor=False))["MixMonitor"]
    assert unmuted.verdict is Verdict.PROBLEM
    assert unmuted.advice == "switch ami.pause_pbx_recording on"
    # Another extension's notice, or a later one, is none.
    for line in ("in,601,1,Gosub(callshield-notice,s,1)", "in,600,9,Gosub(callshield-notice,s,1)"):
        before = Snapshot(dialplan=plan(line, "in,600,2,MixMonitor(a.wav)"))
        assert found(before)["MixMonitor"].verdict is Verdict.PROBLEM


def test_without_ami_every_way_comes_with_a_command_to_look_by_hand() -> None:
    findings = by_hand()
    assert [finding.name for finding in findings] == [way.name for way in WAYS]
    assert all("asterisk -rx" in f.advice or "grep" in f.advice for f in findings)
    assert all("Breaks the promise that" in finding.detail for finding in findings)


def test_sections_may_repeat_and_the_last_value_counts() -> None:
    lines = [
        ("Category-000000", "a"),
        ("Line-000000-000000", "secret=geheim"),
        ("Line-000000-000001", "write=call"),
        ("Category-000001", "a"),
        ("Line-000001-000000", "write=x"),
        ("Line-000001-000001", "write=y = z"),
    ]
    first, second = read_config(lines)
    assert first.get("secret") == "(hidden)"
    assert (second.all("write"), second.get("WRITE")) == (["x", "y = z"], "y = z")
