"""Which phone an agent has: from the configuration, from the PBX that hides it, or from a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from callshield.settings_sip import AgentSettings
from notifier.ami_protocol import Message

#: A User-Agent is no longer than this here.
_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Phone:
    """What is known of an agent's phone.

    Attributes:
        model: a model, or a User-Agent as the phone wrote it; empty when nothing is known.
        source: ``configuration``, ``pbx`` (its registration there), ``call`` (it answered us) or
            empty.
        reachable: what the PBX last said of its contact (``Reachable``, …); empty when it did not.
    """

    agent_id: str
    model: str = ""
    source: Literal["", "configuration", "pbx", "call"] = ""
    reachable: str = ""


class Phones:
    """The phones of all agents.

    Args:
        agents: ``[agents.ID]``.
    """

    def __init__(self, agents: Mapping[str, AgentSettings]) -> None:
        self._agents = agents
        self._contacts: dict[str, tuple[str, str]] = {}
        self._answered: dict[str, str] = {}

    @property
    def endpoints(self) -> frozenset[str]:
        """Endpoints at the PBX that matter here."""
        return frozenset(agent.endpoint for agent in self._agents.values() if agent.endpoint)

    def contacts(self, items: Iterable[Message]) -> None:
        """Take the PBX's whole list (``PJSIPShowContacts``); the last contact of a phone counts."""
        wanted = self.endpoints
        self._contacts = {
            endpoint: (_clean(item.get("UserAgent")), _clean(item.get("Status")))
            for item in items
            if item.event == "ContactList" and (endpoint := item.get("Endpoint")) in wanted
        }

    def answered(self, agent_id: str, user_agent: str) -> None:
        """Who answered our INVITE; the PBX itself where it hides the phone."""
        if user_agent:
            self._answered[agent_id] = _clean(user_agent)

    def get(self, agent_id: str) -> Phone:
        """What is known of one agent's phone; for an unknown agent nothing."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return Phone(agent_id)
        model, reachable = self._contacts.get(agent.endpoint, ("", ""))
        if agent.phone_model:
            return Phone(agent_id, agent.phone_model, "configuration", reachable)
        if model:
            return Phone(agent_id, model, "pbx", reachable)
        if not agent.endpoint and (answered := self._answered.get(agent_id)):
            return Phone(agent_id, answered, "call", reachable)
        return Phone(agent_id, reachable=reachable)


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_MAX_LENGTH]
