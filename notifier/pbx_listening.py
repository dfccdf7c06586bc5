"""Every way in which the PBX itself can listen or record, and which of our promises it breaks.

Callshield has no way to hear a call in secret; a PBX usually has a dozen. They are found here in
what Asterisk says of itself: a pure function over loaded modules, dialplan, configuration files
and running channels. Who asks, and how, is :mod:`notifier.pbx_survey`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from callshield.findings import Finding, Verdict


class Promise(StrEnum):
    """What Callshield promises, in the words of docs and notice."""

    NO_SILENT_LISTENING = "nobody hears a live call in secret"
    NOTICE_FIRST = "nothing is recorded before the caller was told"
    PAUSE = "the agent's pause keeps card data out of every recording"
    ONE_RECORD = "recordings are encrypted, logged when heard, and deleted in time"
    IN_THE_PATH = "all of a call's audio passes Callshield: notice, protection, announcements"


#: One careful clause each; docs/pbx/doctor.md says more. Not legal advice.
LISTENING_LAW = (
    "in Korea listening in is likely wiretapping under the Protection of Communications Secrets "
    "Act (통신비밀보호법), even where recording was announced; other countries have similar acts"
)
RECORDING_LAW = (
    "recording what callers were not told of is likely unlawful in Korea (통신비밀보호법, "
    "개인정보 보호법) and in most other countries"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One priority of the dialplan."""

    context: str
    extension: str
    priority: str
    application: str
    data: str

    @property
    def where(self) -> str:
        return f"{self.context},{self.extension},{self.priority}"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a configuration file; names may repeat, and so may keys."""

    name: str
    values: tuple[tuple[str, str], ...]

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.values if name.lower() == key.lower()]

    def get(self, key: str, default: str = "") -> str:
        """The last value, which is the one that counts in Asterisk."""
        return (self.all(key) or [default])[-1]


@dataclass(frozen=True, slots=True)
class Running:
    """A channel that is up now."""

    channel: str
    application: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a PBX said of itself."""

    modules: frozenset[str] = frozenset()
    """Loaded ones among :func:`modules_of_interest`, without ``.so``."""
    dialplan: tuple[Entry, ...] = ()
    files: Mapping[str, tuple[Section, ...]] = field(default_factory=dict)
    """By name; a file that is missing at the PBX is empty."""
    channels: tuple[Running, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    """What could not be asked, and why."""


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What is Callshield's own at the PBX.

    Args:
        manager_user: ``ami.username``.
        addresses: by which the PBX knows our trunk.
        mutes_mixmonitor: ``ami.pause_pbx_recording``.
    """

    manager_user: str = "callshield"
    addresses: tuple[str, ...] = ()
    mutes_mixmonitor: bool = True


@dataclass(frozen=True, slots=True)
class Way:
    """One way to listen or record."""

    name: str
    applications: tuple[str, ...]
    """Dialplan applications, in small letters."""
    modules: tuple[str, ...]
    breaks: tuple[Promise, ...]
    law: str
    what: str
    """What somebody can do with it."""
    mend: str
    by_hand: str
    """How to look without AMI: commands on the PBX."""


_SPY = (Promise.NO_SILENT_LISTENING,)
_RECORD = (Promise.NOTICE_FIRST, Promise.PAUSE, Promise.ONE_RECORD)

CHANSPY = Way(
    "ChanSpy, ExtenSpy",
    ("chanspy", "extenspy"),
    ("app_chanspy",),
    _SPY,
    LISTENING_LAW,
    "somebody hears a live call unnoticed; with option w he whispers to the agent, with B he "
    "speaks to both (barge)",
    "take it out of the dialplan and put noload=app_chanspy.so into modules.conf; an agent who "
    "wants company asks for help in Callshield, and both parties hear that",
    'asterisk -rx "dialplan show" | grep -iE "ChanSpy|ExtenSpy"; '
    'asterisk -rx "module show like app_chanspy"',
)
MIXMONITOR = Way(
    "MixMonitor",
    ("mixmonitor",),
    ("app_mixmonitor",),
    _RECORD,
    RECORDING_LAW,
    "the PBX records both sides into a plain file",
    "let Callshield record ([recording]), or run it only after the notice was played to its end "
    "(docs/pbx/asterisk.md), with [ami] so that the agent's pause mutes it",
    'asterisk -rx "dialplan show" | grep -i MixMonitor; asterisk -rx "mixmonitor list CHANNEL"',
)
MONITOR = Way(
    "Monitor",
    ("monitor", "changemonitor"),
    ("res_monitor",),
    _RECORD,
    RECORDING_LAW,
    "the PBX records each side into a plain file; Callshield cannot mute it",
    "replace it by Callshield's recording; put noload=res_monitor.so into modules.conf",
    'asterisk -rx "dialplan show" | grep -w Monitor; asterisk -rx "module show like res_monitor"',
)
CONFERENCE = Way(
    "recorded or silent conference",
    (),
    ("app_confbridge", "app_meetme"),
    (*_SPY, *_RECORD),
    LISTENING_LAW,
    "a conference is recorded, or somebody takes part unheard and unannounced",
    "take record_conference and quiet out of the profiles that calls with callers use",
    "grep -nE 'record_conference|quiet|startmuted' /etc/asterisk/confbridge.conf",
)
DICTATE = Way(
    "Dictate",
    ("dictate",),
    ("app_dictate",),
    _RECORD,
    RECORDING_LAW,
    "a channel's audio is kept in a plain file",
    "take it out of the dialplan; noload=app_dictate.so",
    'asterisk -rx "dialplan show" | grep -i Dictate',
)
STREAMS = Way(
    "audio to another program",
    ("audiosocket", "eagi", "externalivr", "jack", "ices", "speechbackground", "speechcreate"),
    ("app_audiosocket", "chan_audiosocket", "app_externalivr", "app_jack", "app_ices"),
    (Promise.NO_SILENT_LISTENING, Promise.NOTICE_FIRST, Promise.ONE_RECORD),
    LISTENING_LAW,
    "a program beside the PBX gets the caller's audio, to hear, analyse or keep it",
    "find out which program that is and what it does with the audio; name it in the notice, or "
    "take it out",
    "asterisk -rx \"dialplan show\" | grep -iE 'AudioSocket|EAGI|ExternalIVR|JACK|ICES|Speech'",
)
BRIDGE_ADD = Way(
    "BridgeAdd",
    ("bridgeadd",),
    ("app_bridgeaddchan",),
    _SPY,
    LISTENING_LAW,
    "a channel is put into a running call without an announcement",
    "take it out of the dialplan; noload=app_bridgeaddchan.so",
    'asterisk -rx "dialplan show" | grep -i BridgeAdd',
)
FEATURE_CODES = Way(
    "recording by feature code",
    (),
    (),
    _RECORD,
    RECORDING_LAW,
    "a few keys on a phone start a recording during any call",
    "empty automon and automixmon in features.conf, and take w, W, x and X out of Dial() and "
    "Queue()",
    'asterisk -rx "features show"; grep -nE "automon|automixmon" /etc/asterisk/features.conf',
)
QUEUE_RECORDING = Way(
    "queue that records",
    (),
    (),
    _RECORD,
    RECORDING_LAW,
    "every call of the queue is recorded by the PBX",
    "take monitor-format out of queues.conf, and let Callshield record",
    "grep -nE 'monitor-(format|type)' /etc/asterisk/queues.conf",
)
ARI_SNOOP = Way(
    "ARI snoop and record",
    (),
    ("res_stasis_snoop", "res_stasis_recording", "res_ari_channels"),
    (*_SPY, Promise.NOTICE_FIRST),
    LISTENING_LAW,
    "a program with an ARI password hears, whispers into or records any channel",
    "keep ARI off (enabled=no in ari.conf), its users read_only=yes, or put "
    "noload=res_stasis_snoop.so into modules.conf",
    'asterisk -rx "ari show status"; asterisk -rx "ari show users"; '
    'asterisk -rx "module show like res_stasis_snoop"',
)
MANAGERS = Way(
    "manager users (AMI)",
    (),
    (),
    (*_SPY, Promise.NOTICE_FIRST),
    LISTENING_LAW,
    "who has such a password can start a listener (Originate with ChanSpy), a recording, or a "
    "command line",
    "give each manager user only what it needs: no all, originate, command, config or system",
    'asterisk -rx "manager show users"; asterisk -rx "manager show user NAME" (its write line)',
)
MEDIA_PATH = Way(
    "audio past Callshield",
    (),
    (),
    (Promise.IN_THE_PATH,),
    "the notice that the law asks for may then not be heard",
    "Asterisk takes itself and, with a re-INVITE, perhaps us out of the audio's way",
    "set direct_media=no in the endpoint of the trunk to Callshield",
    'asterisk -rx "pjsip show endpoint callshield" | grep direct_media',
)
PCAP = Way(
    "packet capture",
    (),
    (),
    (*_SPY, Promise.ONE_RECORD),
    LISTENING_LAW,
    "whoever is root on the PBX, or may use its command line, can copy packets",
    "few people with a login, and SRTP (sip.pbx.srtp) where the network is not your own",
    'asterisk -rx "rtp set debug off"; look who may log in (sudo, sngrep, tcpdump)',
)
WAYS = (
    CHANSPY,
    MIXMONITOR,
    MONITOR,
    CONFERENCE,
    DICTATE,
    STREAMS,
    BRIDGE_ADD,
    FEATURE_CODES,
    QUEUE_RECORDING,
    ARI_SNOOP,
    MANAGERS,
    MEDIA_PATH,
    PCAP,
)
#: Configuration files that :func:`judge` reads.
FILES = (
    "features.conf",
    "queues.conf",
    "confbridge.conf",
    "ari.conf",
    "manager.conf",
    "pjsip.conf",
)
#: At most so many places of one kind are named.
NAMED = 5

_TRUE = {"yes", "true", "y", "t", "1", "on"}
#: An extension that does one of these has told the caller before what comes later in it.
_NOTICE = re.compile(r"callshield-notice|callshield/", re.IGNORECASE)
_SPIES = re.compile(r"chanspy|extenspy|mixmonitor|\bmonitor\b|bridgeadd", re.IGNORECASE)


def modules_of_interest() -> list[str]:
    """Names of the modules to ask for, without ``.so``."""
    return sorted({module for way in WAYS for module in way.modules})


def judge(pbx: Snapshot, ours: Ourselves) -> list[Finding]:
    """What was found, worst first within each way; one line for each way that is closed.

    Args:
        pbx: its own words.
        ours: what belongs to Callshield there.
    """
    found = [
        *_listening_now(pbx),
        *_spies(pbx),
        *_recorders(pbx, ours),
        *_conferences(pbx),
        *_features(pbx),
        *_queues(pbx),
        *_ari(pbx),
        *_managers(pbx, ours),
        *_media_path(pbx, ours),
    ]
    for what, why in pbx.unread:
        found.append(
            Finding(
                Verdict.NOTE,
                f"not asked: {what}",
                why,
                "give the manager user this class, or look by hand: "
                + "; ".join(way.by_hand for way in WAYS if what in _needs(way)),
            )
        )
    if not found:
        found.append(
            Finding(
                Verdict.OK,
                "listening and recording at the PBX",
                f"none found: {len(pbx.dialplan)} dialplan entries, {len(FILES)} files and "
                f"{len(modules_of_interest())} modules were looked at; packet capture and "
                "configuration in a database were not",
            )
        )
    return found


def by_hand() -> list[Finding]:
    """The same ways for somebody who has to look himself."""
    return [
        Finding(Verdict.NOTE, way.name, _breaks(way) + f" It lets {_lower(way.what)}", way.by_hand)
        for way in WAYS
    ]


# ----------------------------------------------------------------------- the single ways


def _listening_now(pbx: Snapshot) -> Iterator[Finding]:
    busy = [c.channel for c in pbx.channels if c.application.lower() in CHANSPY.applications]
    if busy:
        yield _finding(
            Verdict.PROBLEM, CHANSPY, f"running NOW on {_some(busy)}", "end it, and ask who did it"
        )


def _spies(pbx: Snapshot) -> Iterator[Finding]:
    for way in (CHANSPY, DICTATE, STREAMS, BRIDGE_ADD):
        entries = list(_using(pbx.dialplan, way))
        if entries:
            yield _finding(Verdict.PROBLEM, way, "dialplan " + _some(_places(entries)), way.mend)
    if "app_chanspy" in pbx.modules and not any(_using(pbx.dialplan, CHANSPY)):
        yield _finding(
            Verdict.NOTE,
            CHANSPY,
            "app_chanspy is loaded; no dialplan uses it, but Originate and a later dialplan can",
            "put noload=app_chanspy.so into modules.conf",
        )


def _recorders(pbx: Snapshot, ours: Ourselves) -> Iterator[Finding]:
    entries = list(_using(pbx.dialplan, MONITOR))
    if entries:
        yield _finding(
            Verdict.PROBLEM, MONITOR, "dialplan " + _some(_places(entries)), MONITOR.mend
        )
    mixed = list(_using(pbx.dialplan, MIXMONITOR))
    untold = [entry for entry in mixed if not _told_before(entry, pbx.dialplan)]
    told = [entry for entry in mixed if entry not in untold]
    if untold:
        yield _finding(
            Verdict.PROBLEM,
            MIXMONITOR,
            "dialplan " + _some(_places(untold)) + ", with no notice before it in that extension",
            MIXMONITOR.mend,
        )
    if told:
        muted = "muted by the agent's pause" if ours.mutes_mixmonitor else "NOT muted by a pause"
        yield Finding(
            Verdict.NOTE if ours.mutes_mixmonitor else Verdict.PROBLEM,
            MIXMONITOR.name,
            f"dialplan {_some(_places(told))}, after the notice; {muted}; a second, plain file "
            f"beside Callshield's: {Promise.ONE_RECORD.value}",
            "nothing, if it is wanted, its files are protected and deleted in time"
            if ours.mutes_mixmonitor
            else "switch ami.pause_pbx_recording on",
        )


def _conferences(pbx: Snapshot) -> Iterator[Finding]:
    places = [
        f"confbridge.conf [{section.name}] record_conference"
        for section in pbx.files.get("confbridge.conf", ())
        if _true(section.get("record_conference"))
    ]
    for section in pbx.files.get("confbridge.conf", ()):
        if _true(section.get("quiet")) and _true(section.get("startmuted")):
            places.append(f"confbridge.conf [{section.name}] quiet and startmuted")
    for entry in pbx.dialplan:
        application, data = entry.application.lower(), entry.data.replace(" ", "").lower()
        if application in ("set", "mset") and re.search(
            r"confbridge\(bridge,record_conference\)=(yes|true|1|on)", data
        ):
            places.append(f"dialplan {entry.where}")
        elif application == "meetme":
            options = entry.data.split(",")[1] if "," in entry.data else ""
            if set("rmq") & set(re.sub(r"\([^)]*\)", "", options)):
                places.append(f"dialplan {entry.where} MeetMe option {options}")
    if places:
        yield _finding(Verdict.PROBLEM, CONFERENCE, _some(places), CONFERENCE.mend)


def _features(pbx: Snapshot) -> Iterator[Finding]:
    sections = pbx.files.get("features.conf", ())
    codes = [
        f"{key}={section.get(key)}"
        for section in sections
        if section.name.lower() == "featuremap"
        for key in ("automon", "automixmon")
        if section.get(key)
    ]
    open_to = [
        entry
        for entry in pbx.dialplan
        if entry.application.lower() in ("dial", "queue") and _record_options(entry)
    ]
    if codes:
        works = bool(open_to)
        yield _finding(
            Verdict.PROBLEM if works else Verdict.NOTE,
            FEATURE_CODES,
            f"features.conf [featuremap] {', '.join(codes)}"
            + (
                f", open in dialplan {_some(_places(open_to))}"
                if works
                else "; no Dial() or Queue() opens it (options w, W, x, X)"
            ),
            FEATURE_CODES.mend,
        )
    for section in sections:
        if section.name.lower() != "applicationmap":
            continue
        maps = [f"{key} => {value}" for key, value in section.values if _SPIES.search(value)]
        if maps:
            yield _finding(
                Verdict.PROBLEM,
                FEATURE_CODES,
                f"features.conf [applicationmap] {_some(maps)}",
                "take these lines out of features.conf",
            )


def _record_options(entry: Entry) -> bool:
    """``w``, ``W``, ``x`` or ``X`` among the options of Dial or Queue."""
    parts = _arguments(entry.data)
    index = 2 if entry.application.lower() == "dial" else 1
    options = re.sub(r"\([^)]*\)", "", parts[index]) if len(parts) > index else ""
    return bool(set("wWxX") & set(re.sub(r"\$\{[^}]*\}", "", options)))


def _arguments(data: str) -> list[str]:
    """Comma-separated arguments; commas in brackets and braces don't count."""
    parts, depth = [""], 0
    for character in data:
        depth += (character in "({[") - (character in ")}]")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _queues(pbx: Snapshot) -> Iterator[Finding]:
    queues = [
        f"[{section.name}] monitor-format={section.get('monitor-format')}"
        for section in pbx.files.get("queues.conf", ())
        if section.get("monitor-format")
    ]
    if queues:
        yield _finding(
            Verdict.PROBLEM, QUEUE_RECORDING, "queues.conf " + _some(queues), QUEUE_RECORDING.mend
        )


def _ari(pbx: Snapshot) -> Iterator[Finding]:
    sections = pbx.files.get("ari.conf", ())
    general = next((s for s in sections if s.name.lower() == "general"), Section("general", ()))
    # Without the key ARI is on as soon as there is the file and the module.
    enabled = (
        bool(sections)
        and _true(general.get("enabled", "yes"))
        and "res_ari_channels" in pbx.modules
    )
    users = [
        section.name
        for section in sections
        if section.get("type").lower() == "user" and not _true(section.get("read_only"))
    ]
    capable = sorted({"res_stasis_snoop", "res_stasis_recording"} & pbx.modules)
    if enabled and users and capable:
        yield _finding(
            Verdict.PROBLEM,
            ARI_SNOOP,
            f"ari.conf users {_some(users)}; loaded: {', '.join(capable)}",
            ARI_SNOOP.mend,
        )
    elif enabled and capable:
        yield _finding(
            Verdict.NOTE,
            ARI_SNOOP,
            f"loaded: {', '.join(capable)}; no ARI user may use it now",
            ARI_SNOOP.mend,
        )


#: Classes of a manager user with which it can listen or record: Originate starts ChanSpy, a command
#: line or a changed dialplan do anything, and ``system`` has MixMonitor and ModuleLoad. Of ``call``
#: it is Monitor, where that is loaded.
_DANGEROUS = {"all", "originate", "command", "config", "system"}


def _managers(pbx: Snapshot, ours: Ourselves) -> Iterator[Finding]:
    named: list[str] = []
    for section in pbx.files.get("manager.conf", ()):
        name = section.name
        if name.lower() == "general" or not section.get("secret"):
            continue
        write = {part.strip().lower() for part in ",".join(section.all("write")).split(",")}
        dangerous = _DANGEROUS | ({"call"} if "res_monitor" in pbx.modules else set())
        if name == ours.manager_user:
            # It needs these two; it is as safe as the machine that Callshield runs on.
            dangerous -= {"system", "call"}
        if classes := sorted(write & dangerous):
            own = " (Callshield's own!)" if name == ours.manager_user else ""
            named.append(f"{name}{own}: write={','.join(classes)}")
    if named:
        yield _finding(
            Verdict.PROBLEM if "app_chanspy" in pbx.modules else Verdict.NOTE,
            MANAGERS,
            f"manager.conf {_some(named)}"
            + ("; ChanSpy is loaded for them" if "app_chanspy" in pbx.modules else ""),
            MANAGERS.mend,
        )


def _media_path(pbx: Snapshot, ours: Ourselves) -> Iterator[Finding]:
    sections = pbx.files.get("pjsip.conf", ())
    trunks = set()
    for section in sections:
        text = " ".join(section.all("match") + section.all("contact"))
        if any(re.search(rf"(?<![\d.]){re.escape(a)}(?![\d.])", text) for a in ours.addresses):
            trunks |= set(section.all("endpoint")) | {section.name}
    direct = [
        section.name
        for section in sections
        if section.get("type").lower() == "endpoint"
        and section.name in trunks
        and _true(section.get("direct_media", "yes"))
    ]
    if direct:
        yield _finding(
            Verdict.PROBLEM,
            MEDIA_PATH,
            f"pjsip.conf [{'], ['.join(direct)}] without direct_media=no",
            MEDIA_PATH.mend,
        )


# ----------------------------------------------------------------------- small parts


def _using(dialplan: Iterable[Entry], way: Way) -> Iterator[Entry]:
    for entry in dialplan:
        application = entry.application.lower()
        # ExecIf(cond?App(args):...), TryExec, Originate(..., app, ChanSpy, ...) carry one inside.
        inside = application in ("execif", "exec", "tryexec", "originate") and any(
            re.search(rf"\b{re.escape(name)}\b", entry.data, re.IGNORECASE)
            for name in way.applications
        )
        if application in way.applications or inside:
            yield entry


def _told_before(recorder: Entry, dialplan: Iterable[Entry]) -> bool:
    """An earlier priority of the same extension plays the notices."""
    return any(
        entry.context == recorder.context
        and entry.extension == recorder.extension
        and _number(entry.priority) < _number(recorder.priority)
        and _NOTICE.search(entry.data)
        for entry in dialplan
    )


def _number(priority: str) -> int:
    return int(priority) if priority.isdigit() else 0


def _places(entries: Iterable[Entry]) -> list[str]:
    return [f"{entry.where} {entry.application}" for entry in entries]


def _some(places: list[str]) -> str:
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return "; ".join(place[:120] for place in places[:NAMED]) + more


def _true(value: str) -> bool:
    return value.strip().lower() in _TRUE


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _breaks(way: Way) -> str:
    return "Breaks: " + "; ".join(promise.value for promise in way.breaks) + "."


def _finding(verdict: Verdict, way: Way, where: str, mend: str) -> Finding:
    return Finding(verdict, way.name, f"{where}. {way.what}. {_breaks(way)} Law: {way.law}", mend)


def _needs(way: Way) -> tuple[str, ...]:
    """What has to be asked to find a way."""
    asked: list[str] = []
    if way.applications:
        asked.append("dialplan")
    if way.modules:
        asked.append("modules")
    asked += {
        CHANSPY.name: ["channels"],
        FEATURE_CODES.name: ["features.conf", "dialplan"],
        QUEUE_RECORDING.name: ["queues.conf"],
        CONFERENCE.name: ["confbridge.conf", "dialplan"],
        ARI_SNOOP.name: ["ari.conf"],
        MANAGERS.name: ["manager.conf"],
        MEDIA_PATH.name: ["pjsip.conf"],
    }.get(way.name, [])
    return tuple(asked)
