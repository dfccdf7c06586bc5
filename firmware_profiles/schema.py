"""What a profile may say; every fact names its source, and whether that was seen to say so.

An unknown key is an error. ``verified = false`` marks what we believe but did not find written in
the vendor's manual or in a working configuration; docs/phones.md shows it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION
from firmware_profiles.patterns import compile_pattern

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,400}$")]
Codec = Literal["PCMU", "PCMA", "G722", "OPUS"]
Format = Literal[
    "cfg", "colon", "attributes", "cnf_xml", "flat_profile", "p_values", "snom", "fanvil", "ini",
    "account", "by_hand",
]  # fmt: skip
Purpose = Literal[
    "account", "proxy", "transport", "srtp", "codec", "dtmf", "push", "action_url", "end", "help",
    "auto_answer", "security",
]  # fmt: skip
Rule = Literal["equals", "one_of", "filled", "empty", "lists_us"]
When = Literal[
    "always", "tls", "account", "action_url", "authentication_url", "key_dtmf", "key_url",
]  # fmt: skip

_VERSION = re.compile(r"\d+(\.\d+){0,5}")


def version(text: str) -> tuple[int, ...]:
    """``84.0.15`` as numbers.

    Raises:
        ValueError: it is no such version.
    """
    if not _VERSION.fullmatch(text):
        raise ValueError('a version like "84.0.15"')
    return tuple(int(part) for part in text.split("."))


class _Section(BaseModel):
    model_config = SECTION


def _named(vendor: str, family: str) -> str:
    return family if family.startswith(vendor) else f"{vendor} {family}"


class Source(_Section):
    """``[sources.NAME]``: where facts are written."""

    title: Line
    """Of the manual, with its edition where known."""
    section: Line
    """Chapter, table or page."""
    url: str = Field("", pattern=r"^(https?://[^\s<>|]{1,300})?$")
    """Where it was read."""


class _Fact(_Section):
    source: Identifier
    """A NAME of ``[sources]``."""
    verified: bool = True
    """The source was seen to say so."""


class Firmware(_Fact):
    """``[firmware]``: versions that the profile speaks of."""

    min: str = ""
    """First version; empty: any."""
    max: str = ""
    """Last version; empty: any."""
    skip: int = Field(0, ge=0, le=3)
    """Leading parts of the version in the User-Agent that name the hardware, not the version."""

    @field_validator("min", "max")
    @classmethod
    def _is_version(cls, value: str) -> str:
        if value:
            version(value)
        return value

    @model_validator(mode="after")
    def _is_possible(self) -> Firmware:
        if self.min and self.max and version(self.min) > version(self.max):
            raise ValueError(f"a firmware range whose min {self.min} is not above max {self.max}")
        return self

    def holds(self, found: tuple[int, ...]) -> bool:
        """A version, as :func:`version` gives it and without ``skip``, is one of ours."""
        if self.min and found < version(self.min):
            return False
        # 6.4 as the last one has 6.4.3 with it.
        return not (self.max and found[: len(version(self.max))] > version(self.max))

    def overlaps(self, other: Firmware) -> bool:
        """Some version is in both ranges."""
        if self.max and other.min and version(other.min) > version(self.max):
            return False
        return not (other.max and self.min and version(self.min) > version(other.max))


class UserAgent(_Fact):
    """``[[user_agent]]``: how these phones call themselves."""

    kind: Literal["sip", "provisioning"] = "sip"
    pattern: str
    """See :mod:`firmware_profiles.patterns`."""
    example: Line
    """One that was seen; it matches."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        compile_pattern(value)
        return value

    @model_validator(mode="after")
    def _example_matches(self) -> UserAgent:
        if not compile_pattern(self.pattern).matches(self.example):
            raise ValueError(f"an example that matches {self.pattern!r}, not {self.example!r}")
        return self


class Codecs(_Fact):
    """``[codecs]``: what the phone can speak, and how its configuration names it."""

    names: dict[Codec, Annotated[str, Field(pattern=r"^[A-Za-z0-9_./ -]{1,32}$")]] = Field(
        min_length=1
    )
    """The vendor's name of each codec; ours that are absent are not offered to it."""
    separator: str = Field(",", max_length=4)
    """Between the entries of a list."""
    item: str = Field("{codec}", max_length=64)
    """An entry of a list."""
    ptime_ms: list[Annotated[int, Field(ge=10, le=120)]] = [20]
    """Packet times that it keeps to; the first is its default."""
    telephone_event: int = Field(101, ge=96, le=127)
    """Default payload type of telephone-event (RFC 4733)."""
    srtp: bool = False
    """Speaks SRTP with keys in the SDP (RFC 4568)."""


class Quirk(_Fact):
    """``[[quirk]]``: what surprises, and what to do about it."""

    id: Identifier
    text: Line


class AutoAnswer(_Fact):
    """``[[auto_answer]]``: a header of our INVITE that makes the phone answer by itself."""

    header: str = Field(pattern=r"^[A-Za-z-]{1,32}$")
    value: Line
    needs: Line | None = None
    """Key of ``[[setting]]`` without which it is not done."""


class Probe(_Section):
    """What a request without a body and without credentials gets where the method is open."""

    method: Literal["GET", "HEAD"] = "GET"
    path: str = Field(pattern=r"^/[\x21-\x7e]{0,200}$")
    expect: list[Annotated[int, Field(ge=200, le=499)]] = Field(min_length=1)
    """Status codes that say so."""
    challenge: Literal["", "basic", "digest"] = ""
    """Scheme of the challenge, where there must be one."""
    verified: bool = False
    """The manual says so; otherwise another answer is worth a look, no more."""


class PushMethod(_Fact):
    """``[[push]]``: a way to put words on the screen, update them and take them away.

    Enough for whoever sends: nothing about a family is in the sender's code.
    """

    id: Identifier
    transport: Literal["sip_notify", "http_post", "http_get"]
    event: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """SIP Event header; empty where the manual shows none: RFC 6665 wants one all the same, so that
    the sender takes any, such as ``xml``."""
    path: str = Field("", pattern=r"^(/[\x21-\x7e]{0,200})?$")
    """Path of the request, HTTP only."""
    form_field: str = Field("", pattern=r"^[A-Za-z0-9_]{0,32}$")
    """The document goes as this field of a form; empty: it is the body. URL-encoded where
    ``content_type`` is ``application/x-www-form-urlencoded``; with any other type it stands as it
    is after ``FIELD=``."""
    content_type: str = Field("", pattern=r"^([a-z]+/[a-z0-9.+-]+)?$")
    """Content-Type of the body."""
    document: Literal[
        "", "yealink_text", "poly_xhtml", "cisco_execute", "cisco_text", "snom_text",
        "aastra_text", "fanvil_text",
    ] = ""  # fmt: skip
    """Which document shows text; empty: this method shows none (keys only)."""
    clears_by: Literal["nothing", "empty_text", "timeout", "exit_command", "key"] = "nothing"
    """How what was shown goes away; ``key``: ``clear_key`` is pressed remotely."""
    clears_verified: bool = False
    """That was seen written."""
    clear_key: Line | None = None
    encoding: Literal["utf-8", "iso-8859-1"] = "utf-8"
    lines: int = Field(1, ge=1, le=40)
    """Lines of text that are seen without scrolling on the smallest model."""
    characters: int = Field(16, ge=8, le=200)
    """Characters of a line there; wide characters count two."""
    size_verified: bool = False
    """Lines and characters were seen written; otherwise they are chosen small."""
    max_bytes: int = Field(1000, ge=100, le=65536)
    """Largest document."""
    bytes_verified: bool = False
    """That was seen written; otherwise it is chosen small."""
    auth: Literal["none", "basic", "digest", "passcode"] = "none"
    """What HTTP asks for; SIP: digest by the phone's account where it challenges."""
    trust: Literal["anybody", "registrar", "address_list", "credentials"] = "anybody"
    """Whom the phone believes."""
    in_call: Literal["yes", "no", "by_setting", "unknown"] = "unknown"
    """Shows it during a call, which is when it matters."""
    in_call_setting: Line | None = None
    """Key of ``[[setting]]`` that decides."""
    needs: list[Line] = []
    """Keys of ``[[setting]]`` without which it is refused or dropped."""
    success: list[Annotated[int, Field(ge=200, le=299)]] = [200]
    """Status codes that mean taken; none of them says that it was seen."""
    probe: Probe | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> PushMethod:
        if (self.transport == "sip_notify") == bool(self.path):
            raise ValueError("a path for HTTP, and none for SIP NOTIFY")
        if self.document and not self.content_type:
            raise ValueError("a content_type where a document is sent")
        if (self.in_call == "by_setting") != (self.in_call_setting is not None):
            raise ValueError('in_call_setting with in_call = "by_setting", and only then')
        if (self.clears_by == "key") != (self.clear_key is not None):
            raise ValueError('clear_key with clears_by = "key", and only then')
        if self.transport == "sip_notify" and self.auth not in ("none", "digest"):
            raise ValueError("auth none or digest for SIP")
        return self


class RemoteKey(_Fact):
    """``[[remote_key]]``: pressing one of the phone's keys from outside."""

    transport: Literal["sip_notify", "http_get", "http_post"]
    event: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    path: str = Field("", pattern=r"^(/[\x21-\x7e]{0,200})?$")
    content_type: str = Field("", pattern=r"^([a-z]+/[a-z0-9.+-]+)?$")
    template: Line
    """Query or body; ``{key}`` stands for the key's name."""
    asks_once: bool = False
    """The phone asks its user for leave at the first time."""
    needs: list[Line] = []


class Control(_Fact):
    """``[end]`` and ``[help]``: how the agent reaches these on the phone."""

    ways: list[Literal["key_dtmf", "typed_dtmf", "action_url", "headset"]] = Field(min_length=1)
    """``key_dtmf``: a key that sends the feature code; ``typed_dtmf``: the agent types it."""


class Setting(_Fact):
    """``[[setting]]``: one provisioning key: what is written, and what fails when it is not so."""

    key: str = Field(pattern=r"^[A-Za-z0-9_.{}/\[\]= -]{1,120}$")
    """The vendor's name; a path where the format is a tree (``a/b[index=1]/c``). With ``each``,
    ``{codec}``, ``{n}`` (from 1) and ``{n_from_zero}`` stand in it."""
    value: str = Field("", pattern=r"^[^\x00-\x1f\x7f]{0,400}$")
    """Template; see :data:`firmware_profiles.rendering.VARIABLES`."""
    attributes: dict[str, str] = {}
    """Of the element, where the format has them; templates, too."""
    purpose: Purpose
    when: When = "always"
    each: Literal["", "wanted", "known"] = ""
    """Once for each codec that is wanted, or for each that the phone knows."""
    slots: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,64}$")]] = []
    """Names of the places of an ordered list, instead of ``{n}`` in ``key``; the last codec fills
    the rest."""
    secret: bool = False
    """Not written unless it is asked for by a file."""
    rule: Rule = "equals"
    """What a phone's configuration is held against, where there is a ``trap``."""
    allowed: list[str] = []
    """With ``one_of``."""
    absent: Literal["wrong", "fine", "unknown"] = "wrong"
    """What it means that the key is not there: the default is wrong, is fine, or differs."""
    trap: str = Field("", pattern=r"^[^\x00-\x1f\x7f]{0,300}$")
    """What silently fails when this is not so; empty: nothing does."""

    @model_validator(mode="after")
    def _is_whole(self) -> Setting:
        if (self.rule == "one_of") != bool(self.allowed):
            raise ValueError('allowed with rule = "one_of", and only then')
        if self.slots and self.each != "wanted":
            raise ValueError('each = "wanted" with slots')
        if self.secret and self.trap and self.rule not in ("filled", "empty"):
            raise ValueError('rule = "filled" for a secret, which is compared with nothing')
        return self


class ByHand(_Fact):
    """``[[by_hand]]``: what must be set in the phone's web pages, as no key of it is known."""

    where: Line
    value: Line
    trap: Line


class Provisioning(_Fact):
    """``[provisioning]``: the file that the phone fetches."""

    format: Format
    file: Line
    """Its name; ``{mac}`` stands for the phone's address in lower case, ``{MAC}`` in upper case."""
    root: str = Field("", pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,40}$|^$")
    """Root element of a tree."""
    transports: dict[Literal["udp", "tcp", "tls"], str] = {"udp": "0", "tcp": "1", "tls": "2"}
    """The vendor's words for what carries SIP."""


class Profile(_Section):
    """One family of phones."""

    version: Literal[1]
    """Of this schema."""
    id: Identifier
    kind: Literal["desk", "soft", "generic"]
    vendor: Line
    family: Line
    models: list[Line] = Field(min_length=1)
    firmware: Firmware
    sources: dict[Identifier, Source] = Field(min_length=1)
    user_agent: list[UserAgent] = []
    codecs: Codecs
    quirk: list[Quirk] = []
    auto_answer: list[AutoAnswer] = []
    push: list[PushMethod] = []
    remote_key: list[RemoteKey] = []
    end: Control
    help: Control
    provisioning: Provisioning
    setting: list[Setting] = []
    by_hand: list[ByHand] = []

    @property
    def name(self) -> str:
        """For people."""
        return _named(self.vendor, self.family)

    def facts(self) -> list[tuple[str, _Fact]]:
        """Every fact with its place in the file."""
        found: list[tuple[str, _Fact]] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Fact):
                found.append((name, value))
            elif isinstance(value, list):
                found += [
                    (f"{name}.{place}", item)
                    for place, item in enumerate(value)
                    if isinstance(item, _Fact)
                ]
        return found

    @model_validator(mode="after")
    def _is_whole(self) -> Profile:
        if (self.kind == "generic") == bool(self.user_agent):
            raise ValueError('[[user_agent]] unless kind = "generic"')
        for place, fact in self.facts():
            if fact.source not in self.sources:
                raise ValueError(f"{place}.source: a NAME of [sources], not {fact.source!r}")
        keys = {setting.key for setting in self.setting}
        by_url = [setting for setting in self.setting if setting.when == "key_url"]
        if by_url and not all("action_url" in control.ways for control in (self.end, self.help)):
            raise ValueError('ways with "action_url" where a [[setting]] has when = "key_url"')
        # A key of the phone sends the code or calls us: each way has its own settings of it.
        for other in ("key_url", "key_dtmf"):
            seen = [setting.key for setting in self.setting if setting.when != other]
            if len(set(seen)) != len(seen):
                twice = sorted({key for key in seen if seen.count(key) > 1})
                raise ValueError(f"each key of [[setting]] once, not {', '.join(twice)} twice")
        wanted = [
            *(key for method in self.push for key in method.needs),
            *(method.in_call_setting for method in self.push if method.in_call_setting),
            *(key for press in self.remote_key for key in press.needs),
            *(answer.needs for answer in self.auto_answer if answer.needs),
        ]
        for key in wanted:
            if key not in keys and key not in [hand.where for hand in self.by_hand]:
                raise ValueError(f"a [[setting]] or [[by_hand]] for {key!r}, which is needed")
        return self


class UsbId(_Fact):
    """``[usb]``: how the headset is found on USB."""

    vendor_id: int = Field(ge=1, le=0xFFFF)


class Acoustics(_Fact):
    """``[[acoustics]]``: what the maker says of levels at the ear."""

    maximum_db: float = Field(ge=60, le=140)
    unit: Line
    """Weighting and place, e.g. ``dB(A) at the ear reference point``."""
    about: Line


class Calibration(_Fact):
    """``[calibration]``: level at the ear of a full-scale signal, where the maker gives one."""

    db_spl_at_0dbfs: float | None = Field(None, ge=60, le=160)
    """As ``headsets.NAME.calibration_db_spl_at_0dbfs``; absent: it has to be measured."""
    why: Line


class HeadsetProfile(_Section):
    """One maker's headsets on USB HID."""

    version: Literal[1]
    id: Identifier
    vendor: Line
    family: Line
    models: list[Line] = Field(min_length=1)
    sources: dict[Identifier, Source] = Field(min_length=1)
    usb: UsbId
    hid: list[Literal["mute", "hook", "ring", "led"]] = []
    """Controls of the telephony usage page that WebHID can use."""
    acoustics: list[Acoustics] = []
    calibration: Calibration

    @property
    def name(self) -> str:
        """For people."""
        return _named(self.vendor, self.family)

    @model_validator(mode="after")
    def _sources_exist(self) -> HeadsetProfile:
        facts: list[_Fact] = [self.usb, self.calibration, *self.acoustics]
        for fact in facts:
            if fact.source not in self.sources:
                raise ValueError(f"source: a NAME of [sources], not {fact.source!r}")
        return self
