"""``[media]``: who carries the calls' audio, and what another than our own relay cannot give.

What the chosen plane cannot do is refused here, with the reason, wherever the configuration asks
for it: nothing that somebody relies on is left out in silence.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from callshield.law_presets import Fault
from callshield.settings_base import SECTION
from callshield.settings_base import address as _address
from callshield.settings_law import BROKEN


def host_port(value: str) -> tuple[str, int]:
    """Address and port of ``192.0.2.1:2223`` or ``[2001:db8::1]:2223``.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = value.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.strip("[]"))
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError
        if (parsed.version == 6) != host.startswith("["):
            raise ValueError
    except ValueError:
        raise ValueError("an address and a port like 127.0.0.1:2223") from None
    return str(parsed), int(port)


class RtpengineSettings(BaseModel):
    """``[media.rtpengine]``: where rtpengine is, and what it calls its sides.

    Used with ``media.plane = "rtpengine"`` (docs/media-planes.md).
    """

    model_config = SECTION

    control: str = "127.0.0.1:2223"
    """Its ``listen-ng``: UDP, and without any proof of who asks, so on loopback or in a network of
    its own."""
    dtmf_log: str = "127.0.0.1:2226"
    """Its ``dtmf-log-dest``, where this node listens: keys that caller and agent press."""
    pbx_interface: str = Field("pbx", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Name of its ``interface`` towards the PBX, at the address of ``sip.pbx``."""
    phone_interface: str = Field("phone", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Name of its ``interface`` towards the phones, at the address of ``sip.phone``."""
    tap_address: str | None = None
    """Our address to which it copies the caller's audio; ``sip.pbx.bind`` when absent."""
    learn_addresses: bool = False
    """Take media of ``sip.pbx.networks`` and ``sip.phone.networks`` that comes from elsewhere than
    the SDP says (phones behind NAT). rtpengine knows no networks: for up to two seconds it follows
    whoever sends first, until the node sees a stranger and takes the call back. Only where a
    firewall keeps strangers from its ports."""

    @field_validator("control", "dtmf_log")
    @classmethod
    def _is_host_port(cls, value: str) -> str:
        host_port(value)
        return value

    @field_validator("tap_address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else _address(value)


class MediaSettings(BaseModel):
    """``[media]``: who carries the calls' audio."""

    model_config = SECTION

    plane: Literal["relay", "rtpengine"] = "relay"
    """``relay``: our own. ``rtpengine``: one that runs beside; recording, hearing protection, SRTP,
    helpers' phones and the agent's notice tone are then refused (docs/media-planes.md)."""
    rtpengine: RtpengineSettings = Field(default_factory=RtpengineSettings)  # type: ignore[arg-type]


_WHY = 'with media.plane = "rtpengine"'


def keep_to_the_plane(settings: Any) -> None:
    """Refuse a finished configuration that asks for what the media plane cannot give.

    Raises:
        PydanticCustomError: of type :data:`callshield.settings_law.BROKEN`, with every fault in
            ``ctx["faults"]``.
    """
    faults = _rtpengine_faults(settings)
    if settings.media.plane == "relay":
        faults = []
        if not settings.ear.limiter:
            faults.append(
                ("ear.limiter", "False", "true: the relay always limits what agents hear")
            )
    if faults:
        key, _, expected = faults[0]
        raise PydanticCustomError(
            BROKEN, "{sentence}", {"sentence": f"{key}: {expected}", "faults": faults}
        )


def _rtpengine_faults(settings: Any) -> list[Fault]:
    ear = settings.ear
    people = {f"agents.{one}": agent for one, agent in settings.agents.items()}
    people |= {f"supervisors.{one}": person for one, person in settings.supervisors.items()}
    wrong = [
        (
            settings.recording.enabled,
            "recording.enabled",
            f"false {_WHY}: its recorder writes unencrypted packets, not both sides of a call for "
            "the node's key",
        ),
        (
            ear.limiter,
            "ear.limiter",
            f"false {_WHY}: it hands sound on as it came, so shrieks reach agents' ears unless "
            "their phones or headsets limit them",
        ),
        (
            ear.levelling,
            "ear.levelling",
            f"false {_WHY}: it makes no caller louder or quieter",
        ),
        (
            ear.soften_from_level != 4,
            "ear.soften_from_level",
            f"4 {_WHY}: it softens no shouting",
        ),
        (
            ear.calibration_db_spl_at_0dbfs is not None,
            "ear.calibration_db_spl_at_0dbfs",
            f"no such key {_WHY}: it measures no sound, so there is no dose to relate",
        ),
        (
            bool(settings.hearing.dose_warnings_pct),
            "hearing.dose_warnings_pct",
            f"[] {_WHY}: it measures no sound, so there is no dose to warn of",
        ),
        (
            settings.hearing.times_speech,
            "hearing.voice_hint_after_s",
            f"0 {_WHY}: it does not say when agents speak",
        ),
        (
            settings.notice.agent_hears != "nothing",
            "notice.agent_hears",
            f'"nothing" {_WHY}: it does not mix, so a tone could only take the place of the '
            "caller's voice",
        ),
        (
            bool(settings.supervisors) and settings.help.phones,
            "help.phones",
            f"false {_WHY}: it does not mix, so nobody can join a call by phone; supervisors get "
            "alerts on their screens",
        ),
        *(
            (
                side.srtp != "off",
                f"sip.{name}.srtp",
                f'"off" {_WHY}: keys are agreed by this node, and it makes its own',
            )
            for name, side in (("pbx", settings.sip.pbx), ("phone", settings.sip.phone))
        ),
        *(
            (
                ":" in side.media_advertised,
                f"sip.{name}.bind",
                f"an IPv4 address {_WHY}: its IPv6 was not tried",
            )
            for name, side in (("pbx", settings.sip.pbx), ("phone", settings.sip.phone))
        ),
        *(
            (
                person.srtp not in (None, "off"),
                f"{key}.srtp",
                f'"off" {_WHY}: keys are agreed by this node, and it makes its own',
            )
            for key, person in people.items()
        ),
        *(
            (
                bool(getattr(person, "headset", "")),
                f"{key}.headset",
                f"no such key {_WHY}: it limits nothing for a headset and measures no dose",
            )
            for key, person in people.items()
        ),
    ]
    return [(key, _found(settings, key), expected) for is_wrong, key, expected in wrong if is_wrong]


def _found(settings: Any, key: str) -> str:
    value: Any = settings
    for part in re.split(r"\.", key):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return repr(value)
