"""The provisioning fragment of one agent's phone, in the vendor's own format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from callshield.errors import SetupError
from firmware_profiles.schema import Codec, Profile, Setting
from firmware_profiles.writing import Entry, write

#: What a template of ``[[setting]]`` may name.
VARIABLES = {
    "user": "account and its name for digest",
    "agent": "the agent's id",
    "proxy": "who takes the phone's calls: Callshield, or the PBX in front of it",
    "proxy_in_uri": "the same, an IPv6 address in brackets",
    "proxy_port": "its port",
    "register": "1 where the phone registers at the proxy, else 0",
    "register_word": "the same as Yes or No",
    "register_true": "the same as true or false",
    "register_s": "the same as 3600 or 0 seconds",
    "us": "Callshield's address, from which screens are pushed",
    "transport": "udp, tcp or tls",
    "transport_word": "the vendor's word for it ([provisioning] transports)",
    "srtp": "0 or 1",
    "srtp_word": "off or on",
    "codec": "with each: the vendor's name of the codec",
    "n": "with each: its place, from 1",
    "n_from_zero": "with each: the same less one",
    "rate": "with each: the RTP clock rate (RFC 3551, RFC 7587), Hz",
    "priority": "with each: its place, or 0 when it is not wanted",
    "enabled": "with each: 1 when it is wanted, or 0",
    "codec_list": "all wanted ones",
    "telephone_event": "payload type",
    "end_code": "feature code of end",
    "help_code": "feature code of help",
    "end_label": "what the key is called",
    "help_label": "what the key is called",
    "action_url": "where the phone tells events, without query",
    "end_url": "what the agent's key for end calls",
    "help_url": "what the agent's key for help calls",
    "authentication_url": "where a Cisco phone asks who may push",
    "push_user": "name for pushing by HTTP",
    "password": "secret: of the account",
    "push_password": "secret: for pushing by HTTP",
}
Keys = Literal["auto", "dtmf", "url"]
_SECRETS = ("password", "push_password")
_NAME = re.compile(r"\{([a-z_]+)\}")
#: What the keys are called: short enough for a soft key.
LABELS = {
    "ko": ("안내 후 종료", "관리자 호출"),
    "en": ("End call", "Call help"),
    "zh": ("告知后挂断", "呼叫主管"),
    "ja": ("案内して終了", "管理者呼出"),
}


@dataclass(frozen=True, slots=True, repr=False)
class Values:
    """What goes into the templates; see :data:`VARIABLES`.

    Attributes:
        register: the phone registers at ``proxy``: a PBX; Callshield takes no registrations.
        codecs: wanted, in this order; a phone gets those of them that it has.
        keys: what the keys for *end* and *help* do: send the codes, call our listener, or
            (``auto``) the first where the phone can, else the second.
        password: ``None``: not told, and left out.
    """

    agent: str
    user: str
    proxy: str
    proxy_port: int
    us: str
    register: bool = False
    transport: Literal["udp", "tcp", "tls"] = "udp"
    srtp: bool = False
    codecs: Sequence[Codec] = ("PCMU", "PCMA")
    end_code: str = "*9#"
    help_code: str = "*8#"
    language: str = "ko"
    action_url: str = ""
    end_url: str = ""
    help_url: str = ""
    keys: Keys = "auto"
    authentication_url: str = ""
    push_user: str = "callshield"
    password: str | None = None
    push_password: str | None = None

    def __repr__(self) -> str:
        return f"Values(agent={self.agent!r}, …)"


def render(profile: Profile, values: Values) -> str:
    """The whole fragment; the same values give the same bytes.

    Raises:
        SetupError: no codec of ours is left, a value cannot be written, or the phone's keys
            cannot do what they are asked to.
    """
    if values.keys == "url" and not _can_call(profile, values):
        missing = (
            "phones.port and phones.url are not set"
            if not values.end_url
            else (f"no key of {profile.name} is known to do it")
        )
        raise SetupError(f"keys that call Callshield cannot be written: {missing}")
    remarks = [
        f"Callshield: {profile.name}, agent {values.agent}; put it into {profile.provisioning.file}"
    ]
    remarks += [
        f"BY HAND: {hand.where} = {filled(hand.value, profile, values)}" for hand in profile.by_hand
    ]
    entries = list(entries_of(profile, values))
    return write(profile.provisioning.format, profile.provisioning.root, entries, remarks)


def entries_of(profile: Profile, values: Values) -> Iterator[Entry]:
    """What is written, in the order of the profile.

    Raises:
        SetupError: no codec of ours is left.
    """
    for _, entry in settings_of(profile, values):
        yield entry


def settings_of(profile: Profile, values: Values) -> Iterator[tuple[Setting, Entry]]:
    """Each entry with the setting that it comes from.

    Raises:
        SetupError: no codec of ours is left.
    """
    wanted = _wanted(profile, values)
    for setting in profile.setting:
        if not _applies(setting, profile, values):
            continue
        if not setting.each:
            yield setting, _entry(setting, setting.key, profile, values, {})
        elif setting.slots:
            for place, slot in enumerate(setting.slots):
                codec = wanted[min(place, len(wanted) - 1)]
                more = _of_codec(profile, wanted, codec)
                yield setting, _entry(setting, slot, profile, values, more)
        else:
            for codec in wanted if setting.each == "wanted" else profile.codecs.names:
                more = _of_codec(profile, wanted, codec)
                key = _NAME.sub(lambda match, more=more: more[match[1]], setting.key)  # type: ignore[misc]
                yield setting, _entry(setting, key, profile, values, more)


def filled(template: str, profile: Profile, values: Values) -> str:
    """A template without secrets.

    Raises:
        SetupError: it names something unknown, or a secret that was not told.
    """
    found = _fill(template, _variables(profile, values))
    if found is None:
        raise SetupError(f"{profile.id}: a secret outside [[setting]]")
    return found


def calls_us(profile: Profile, values: Values) -> bool:
    """The keys for *end* and *help* call our listener; otherwise they send the codes, or there are
    none. A code goes the call's own way: it needs no network between, and nobody reads it there
    who does not hear the call."""
    if not _can_call(profile, values):
        return False
    return values.keys == "url" or (values.keys == "auto" and "key_dtmf" not in profile.end.ways)


def _can_call(profile: Profile, values: Values) -> bool:
    return bool(values.end_url and values.help_url) and "action_url" in profile.end.ways


def _applies(setting: Setting, profile: Profile, values: Values) -> bool:
    match setting.when:
        case "key_dtmf":
            return not calls_us(profile, values)
        case "key_url":
            return calls_us(profile, values)
        case "tls":
            return values.transport == "tls"
        case "account":
            return values.register or values.password is not None
        case "action_url":
            return bool(values.action_url)
        case "authentication_url":
            return bool(values.authentication_url)
        case _:
            return True


def _wanted(profile: Profile, values: Values) -> list[Codec]:
    wanted = [codec for codec in values.codecs if codec in profile.codecs.names]
    if not wanted:
        raise SetupError(
            f"{profile.name} has none of the codecs {', '.join(values.codecs) or '(none)'}: add "
            "PCMU or PCMA to sip.phone.codecs"
        )
    return wanted


def _of_codec(profile: Profile, wanted: Sequence[Codec], codec: Codec) -> dict[str, str]:
    place = wanted.index(codec) + 1 if codec in wanted else 0
    number = place or len(wanted) + 1 + _rest(profile, wanted).index(codec)
    return {
        "codec": profile.codecs.names[codec],
        "n": str(number),
        "n_from_zero": str(number - 1),
        "rate": "48000" if codec == "OPUS" else "8000",
        "priority": str(place),
        "enabled": str(int(place > 0)),
    }


def _rest(profile: Profile, wanted: Sequence[Codec]) -> list[Codec]:
    return [codec for codec in profile.codecs.names if codec not in wanted]


def _entry(
    setting: Setting, key: str, profile: Profile, values: Values, more: Mapping[str, str]
) -> Entry:
    variables = {**_variables(profile, values), **more}
    value = _fill(setting.value, variables)
    attributes = {name: _fill(text, variables) or "" for name, text in setting.attributes.items()}
    return Entry(key, value, attributes)


def _fill(template: str, variables: Mapping[str, str | None]) -> str | None:
    """``None`` where a secret is missing."""
    for name in _NAME.findall(template):
        if name not in variables:
            raise SetupError(f"a template names {{{name}}}, which does not exist")
        if variables[name] is None:
            return None
    return _NAME.sub(lambda match: variables[match[1]] or "", template)


def _variables(profile: Profile, values: Values) -> dict[str, str | None]:
    codecs = profile.codecs
    end_label, help_label = LABELS.get(values.language, LABELS["en"])
    return {
        "user": values.user,
        "agent": values.agent,
        "proxy": values.proxy,
        "proxy_in_uri": f"[{values.proxy}]" if ":" in values.proxy else values.proxy,
        "proxy_port": str(values.proxy_port),
        "register": str(int(values.register)),
        "register_word": "Yes" if values.register else "No",
        "register_true": "true" if values.register else "false",
        "register_s": "3600" if values.register else "0",
        "us": values.us,
        "transport": values.transport,
        "transport_word": profile.provisioning.transports[values.transport],
        "srtp": str(int(values.srtp)),
        "srtp_word": "on" if values.srtp else "off",
        "codec_list": codecs.separator.join(
            codecs.item.replace("{codec}", codecs.names[codec])
            for codec in _wanted(profile, values)
        ),
        "telephone_event": str(codecs.telephone_event),
        "end_code": values.end_code,
        "help_code": values.help_code,
        "end_label": end_label,
        "help_label": help_label,
        "action_url": values.action_url,
        "end_url": values.end_url,
        "help_url": values.help_url,
        "authentication_url": values.authentication_url,
        "push_user": values.push_user,
        "password": values.password,
        "push_password": values.push_password,
    }


assert set(_SECRETS) <= set(VARIABLES)
