"""What the agents' phones call themselves: by it their family is known (docs/phones.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from callshield.messages_phones import PhoneSeen
from callshield.settings_sip import AgentSettings
from sipbridge.sip_message import SipHeaders

#: A User-Agent is no longer than this here.
MAX_LENGTH = 256


class PhonesSeen:
    """The User-Agents of the phones that answered our INVITEs; each is told once, and again when
    it changes.

    Args:
        agents: ``[agents.ID]``.
        tell: takes what is new.
    """

    def __init__(
        self, agents: Mapping[str, AgentSettings], tell: Callable[[PhoneSeen], None]
    ) -> None:
        self._agents = agents
        self._tell = tell
        self._known: dict[str, PhoneSeen] = {}

    def answered(self, agent_id: str, uri: str, headers: SipHeaders) -> None:
        """An agent's leg was answered.

        Args:
            agent_id: whose leg.
            uri: that we called.
            headers: of the answer.
        """
        agent = self._agents.get(agent_id)
        if agent is None or agent.uri != uri or agent.endpoint:
            return  # somebody else's phone; or the PBX answers for it, and hides it
        said = headers.first("User-Agent") or headers.first("Server")
        name = "".join(letter for letter in said if letter.isprintable())[:MAX_LENGTH]
        known = self._known.get(agent_id)
        if not name or (known is not None and known.user_agent == name):
            return
        seen = PhoneSeen(agent_id=agent_id, user_agent=name, source="bridge")
        self._known[agent_id] = seen
        self._tell(seen)

    def known(self) -> list[PhoneSeen]:
        """All of them, for a notifier that may not know any more."""
        return list(self._known.values())
