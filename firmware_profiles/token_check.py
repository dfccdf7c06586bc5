"""Whose addresses stand in a phone's configuration: a key that acts for a colleague is found. Pure.

An address is looked for in every setting, as phones have many places for one. No finding shows a
token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from callshield.findings import Finding, note, ok, problem
from firmware_profiles.phone_tokens import TOKEN_LENGTH, PhoneTokens

_ADDRESS = re.compile(
    r"(?P<base>https?://[^\s/\"'<>|]{1,300})?/p/"
    rf"(?P<token>[A-Za-z0-9]{{{TOKEN_LENGTH}}})/(?P<action>end|help|event)\b"
)
_FRAGMENT = "write what `callshield profiles render` writes for this agent"


def without_tokens(text: str) -> str:
    """Text for a screen, its tokens hidden."""
    return re.sub(rf"/p/[A-Za-z0-9]{{{TOKEN_LENGTH}}}/", "/p/…/", text)


def calls_us(found: Mapping[str, str]) -> bool:
    """A key of this phone calls our listener for *end* or *help*, in whoever's name."""
    matches = (match for value in found.values() for match in _ADDRESS.finditer(value))
    return any(match["action"] != "event" for match in matches)


def check_tokens(
    found: Mapping[str, str], tokens: PhoneTokens, agent_id: str, url: str
) -> list[Finding]:
    """Every address of our listener in a phone's settings.

    Args:
        found: settings.
        tokens: of this node.
        agent_id: whose phone it is.
        url: ``phones.url``.
    """
    findings = []
    for key, value in found.items():
        for match in _ADDRESS.finditer(value):
            findings.append(_judge(key, match, tokens, agent_id, url))
    return findings


def _judge(key: str, match: re.Match[str], tokens: PhoneTokens, agent_id: str, url: str) -> Finding:
    action = match["action"]
    whose = tokens.agent(match["token"], action)
    if whose is None:
        return problem(
            key,
            f"an address for {action} that is no agent's: of another node, of an agent who is "
            "gone, or from before the key was made anew",
            _FRAGMENT,
        )
    if whose != agent_id:
        does = {"end": "ends that agent's calls", "help": "calls for help in that agent's name"}
        return problem(
            key,
            f"the address for {action} is agent {whose}'s: this phone "
            f"{does.get(action, 'speaks for that agent')}",
            _FRAGMENT,
        )
    if (match["base"] or "") != url:
        return problem(
            key,
            f"the address for {action} leads to {match['base'] or 'nowhere'}, not to {url}",
            _FRAGMENT,
        )
    if url.startswith("http:") and action != "event":
        return note(
            key,
            f"{action} of agent {agent_id}, unencrypted: who reads it on the phones' network can "
            "press it",
            "keep strangers out of that network, or see phones.certificate (docs/screens.md)",
        )
    return ok(key, f"{action} of agent {agent_id}")
