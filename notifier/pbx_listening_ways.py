"""The ways in which Asterisk can listen or record: what each is, breaks, and how to close it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    "in Korea a recording that the caller was not told of may breach the Personal Information "
    "Protection Act (개인정보 보호법), and where the recorder is no party to the call the "
    "Protection of Communications Secrets Act too; other countries have similar acts"
)


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
    "Asterisk may take itself, and with it Callshield, out of the audio's way",
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


def modules_of_interest() -> list[str]:
    """Names of the modules to ask for, without ``.so``."""
    return sorted({module for way in WAYS for module in way.modules})


def asked_for(way: Way) -> tuple[str, ...]:
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
