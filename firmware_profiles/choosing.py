"""How an agent's phone is told: which family it is, which way of pushing, and who sends it. Pure.

Or why nothing can be pushed, in a sentence for the operator: a phone that stays dark must not be
a surprise in the first bad call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from callshield.errors import CallshieldError
from callshield.settings import Settings
from callshield.settings_phones import FamilySettings
from callshield.settings_sip import SIP_URI, AgentSettings
from firmware_profiles.catalogue import Catalogue
from firmware_profiles.documents import HOLD_S
from firmware_profiles.matching import match
from firmware_profiles.online import phone_address
from firmware_profiles.schema import Profile, PushMethod

Via = Literal["bridge", "pbx", "http"]
Source = Literal["configured", "pbx", "bridge"]
#: What counts more when several say what a phone is.
_BELIEVED: tuple[Source, ...] = ("configured", "pbx", "bridge")


@dataclass(frozen=True, slots=True)
class Plan:
    """How one agent's phone is told.

    Attributes:
        host: the phone's address, for HTTP; empty otherwise.
        language: of the screen.
        hold_s: after so long a screen goes by itself; ``None``: never.
        cautions: what must be so on the phone, and what was never seen written.
    """

    agent_id: str
    profile: Profile
    method: PushMethod
    via: Via
    host: str
    language: str
    hold_s: float | None
    reason: str
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why nothing is shown on one agent's phone.

    Attributes:
        expected: nobody wanted it otherwise: the phone cannot, or it was switched off.
    """

    agent_id: str
    profile_id: str
    reason: str
    expected: bool = False


def model_of(agent: AgentSettings, seen: Mapping[Source, str]) -> tuple[str, Source | Literal[""]]:
    """What is known of a phone, and who says so.

    Args:
        agent: its table; ``phone_model`` goes before everything.
        seen: User-Agents by who saw them. What answers the bridge behind a PBX is the PBX.
    """
    known: dict[Source, str] = dict(seen)
    if agent.endpoint:
        known.pop("bridge", None)
    if agent.phone_model:
        known["configured"] = agent.phone_model
    for source in _BELIEVED:
        if known.get(source):
            return known[source], source
    return "", ""


def choose(
    catalogue: Catalogue,
    settings: Settings,
    agent_id: str,
    seen: Mapping[Source, str],
    passwords: Mapping[str, str],
) -> Plan | NoPlan:
    """How the phone of a configured agent is told, or why not.

    Args:
        catalogue: all profiles.
        settings: the node's.
        agent_id: an ID of ``[agents.ID]``.
        seen: see :func:`model_of`.
        passwords: of the families that have one, by profile.
    """
    agent = settings.agents[agent_id]
    text, source = model_of(agent, seen)
    found = match(catalogue, text)
    profile = found.profile
    if not settings.phones.enabled:
        return NoPlan(agent_id, profile.id, "phones.enabled is false", expected=True)
    if not text:
        who = "the PBX" if agent.endpoint else "the phone itself when it answers a call"
        return NoPlan(agent_id, profile.id, f"no agents.{agent_id}.phone_model, and {who} did not "
                      "tell yet what it is")  # fmt: skip
    if profile.kind == "generic":
        return NoPlan(agent_id, profile.id, f"no family known here: {found.reason}")
    family = settings.phones.families.get(profile.id, FamilySettings())  # type: ignore[call-arg]
    if family.push == "off":
        return NoPlan(
            agent_id, profile.id, f"phones.families.{profile.id}.push is off", expected=True
        )
    shows = [method for method in profile.push if method.document]
    if not shows:
        keys = (
            " (its interface presses keys and shows no text)"
            if profile.push or profile.remote_key
            else ""
        )
        return NoPlan(
            agent_id,
            profile.id,
            f"no way to put words on the screen of {profile.name} is known{keys}: the warning is "
            "in the console",
            expected=True,
        )
    if family.push:
        shows = [method for method in shows if method.id == family.push]
        if not shows:
            known = ", ".join(method.id for method in profile.push if method.document)
            return NoPlan(
                agent_id,
                profile.id,
                f"phones.families.{profile.id}.push names no way that shows words: {known}",
            )
    refusals: list[str] = []
    for method in shows:
        password = passwords.get(profile.id, "")
        way = _way(settings, agent_id, profile, family, method, password)
        if not isinstance(way, str) and source != "configured" and _leaks(family, method, password):
            way = (
                "the family's password would go, readable, to whatever calls itself such a phone: "
                f"set agents.{agent_id}.phone_model, or tls with verify"
            )
        if isinstance(way, str):
            refusals.append(f"{method.id}: {way}")
            continue
        via, host = way
        return Plan(
            agent_id,
            profile,
            method,
            via,
            host,
            agent.screen_language or settings.node.language,
            float(HOLD_S) if method.clears_by == "timeout" else None,
            f"{profile.name} ({_SAYS[source]}): {method.id}, sent by {_SENT[via]}",
            _cautions(method),
        )
    return NoPlan(agent_id, profile.id, f"{profile.name}: {'; '.join(refusals)}")


_SAYS = {
    "configured": "says the configuration",
    "pbx": "says the PBX",
    "bridge": "says the phone",
    "": "",
}
_SENT = {"bridge": "Callshield by SIP", "pbx": "the PBX by SIP", "http": "Callshield by HTTP"}


def _way(
    settings: Settings,
    agent_id: str,
    profile: Profile,
    family: FamilySettings,
    method: PushMethod,
    password: str,
) -> tuple[Via, str] | str:
    """Who sends it and where to, or why nobody can."""
    agent = settings.agents[agent_id]
    if method.in_call == "no":
        return "not shown during a call"
    if method.document == "cisco_execute" and not (settings.phones.port and settings.phones.url):
        return "the phone fetches the screen from us: set phones.port and phones.url"
    if method.transport == "sip_notify":
        return _sip_way(settings, agent, agent_id, family)
    if method.transport != "http_post":
        return f"{method.transport} carries no document"
    if family.via not in ("auto", "http"):
        return f"phones.families.{profile.id}.via is {family.via}, and this way is HTTP"
    if agent.endpoint and not agent.phone_address:
        return f"the phone is behind the PBX: set agents.{agent_id}.phone_address"
    uri = SIP_URI.match(agent.uri)
    written = agent.phone_address or (uri["host"] if uri else "")
    try:
        host = phone_address(written, settings.sip.phone.networks)
    except CallshieldError as error:
        return str(error)
    if method.trust == "credentials" and method.auth != "none" and not (family.user and password):
        return (
            f"the phone wants a name and password: set phones.families.{profile.id}.user and "
            "password_file"
        )
    return "http", host


def _leaks(family: FamilySettings, method: PushMethod, password: str) -> bool:
    """Who answers reads the password: what a phone says of itself is no reason to send it."""
    known = family.tls and family.verify
    return method.auth == "basic" and bool(family.user and password) and not known


def _sip_way(
    settings: Settings, agent: AgentSettings, agent_id: str, family: FamilySettings
) -> tuple[Via, str] | str:
    via = family.via
    if via == "http":
        return "this way is SIP, and via is http"
    if via == "auto":
        via = "pbx" if agent.endpoint else "bridge"
    if via == "bridge" and agent.endpoint and family.via == "auto":
        return "the phone is behind the PBX"
    if via == "pbx":
        if not agent.endpoint:
            return f"agents.{agent_id}.endpoint is not set, so that the PBX does not know whom"
        if not settings.ami.enabled:
            return "the phone is behind the PBX, and [ami] is not configured"
        return "pbx", ""
    return "bridge", ""


def _cautions(method: PushMethod) -> tuple[str, ...]:
    found = []
    if method.needs:
        found.append(f"needs {', '.join(method.needs)}")
    if method.in_call == "by_setting":
        found.append(f"{method.in_call_setting} decides whether it is seen during a call")
    elif method.in_call == "unknown":
        found.append("that it is seen during a call was not found written")
    if not method.verified:
        found.append("this way was not found written in the maker's manual: try it on one phone")
    return tuple(found)
