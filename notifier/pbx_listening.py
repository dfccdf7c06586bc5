"""Every way in which the PBX itself can listen or record, and which of our promises it breaks.

Callshield has no way to hear a call in secret; a PBX usually has a dozen. They are found here in
what Asterisk says of itself: a pure function over loaded modules, dialplan, configuration files
and running channels. Who asks, and how, is :mod:`notifier.pbx_survey`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from callshield.findings import Finding, Verdict
from notifier.pbx_listening_ways import (
    ARI_SNOOP,
    BRIDGE_ADD,
    CHANSPY,
    CONFERENCE,
    DICTATE,
    FEATURE_CODES,
    MANAGERS,
    MEDIA_PATH,
    MIXMONITOR,
    MONITOR,
    QUEUE_RECORDING,
    STREAMS,
    WAYS,
    Promise,
    Way,
    asked_for,
    modules_of_interest,
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
    """Loaded ones among those of interest, without ``.so``."""
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
    if pbx.unread:
        found += _unread(pbx, {finding.name for finding in found})
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
    return [_by_hand(way) for way in WAYS]


def _by_hand(way: Way) -> Finding:
    return Finding(Verdict.NOTE, way.name, f"{way.what}. {_breaks(way.breaks)}", way.by_hand)


def _unread(pbx: Snapshot, known: set[str]) -> Iterator[Finding]:
    """What could not be asked, and how to look for each way that may hide there."""
    missing = {what for what, _ in pbx.unread}
    yield Finding(
        Verdict.NOTE,
        "not asked",
        "; ".join(f"{what}: {why}" for what, why in pbx.unread),
        "let doctor have a manager user with write=system,reporting (docs/pbx/doctor.md), or look "
        "by hand for what follows",
    )
    for way in WAYS:
        if way.name not in known and missing & set(asked_for(way)):
            yield _by_hand(way)


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
            tuple(
                p for p in MIXMONITOR.breaks if p is not Promise.PAUSE or not ours.mutes_mixmonitor
            ),
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
#: line or a changed dialplan do anything, and ``system`` has MixMonitor and ModuleLoad.
_DANGEROUS = {"all", "originate", "command", "config", "system"}


def _managers(pbx: Snapshot, ours: Ourselves) -> Iterator[Finding]:
    named: list[str] = []
    record: list[str] = []
    for section in pbx.files.get("manager.conf", ()):
        name = section.name
        if name.lower() == "general" or not section.get("secret"):
            continue
        write = {part.strip().lower() for part in ",".join(section.all("write")).split(",")}
        # Ours needs it; it is as safe as the machine that Callshield runs on.
        dangerous = _DANGEROUS - ({"system"} if name == ours.manager_user else set())
        if "call" in write and not write & dangerous:
            record.append(f"{name}: write=call")
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
    if record and "res_monitor" in pbx.modules:
        # Every user that sets variables or mutes MixMonitor has this class, ours among them.
        yield Finding(
            Verdict.NOTE,
            "Monitor by a manager user",
            f"manager.conf {_some(record)}; the action Monitor records any channel with it. "
            f"{_breaks(MONITOR.breaks)} Law: {MONITOR.law}",
            "put noload=res_monitor.so into modules.conf; Callshield does not need it",
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


def _breaks(breaks: Iterable[Promise]) -> str:
    return "Breaks the promise that " + "; that ".join(promise.value for promise in breaks) + "."


def _finding(
    verdict: Verdict, way: Way, where: str, mend: str, breaks: tuple[Promise, ...] | None = None
) -> Finding:
    promises = _breaks(way.breaks if breaks is None else breaks)
    return Finding(verdict, way.name, f"{where}: {way.what}. {promises} Law: {way.law}", mend)
