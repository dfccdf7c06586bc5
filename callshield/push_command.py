"""``callshield profiles push``: a few words on a phone, so that nobody finds out in a bad call."""

from __future__ import annotations

import asyncio
import sys

from callshield.errors import SetupError
from callshield.messages_phones import ScreenPushed, ShowTest
from callshield.notifier_request import ask_bus, request_id
from callshield.settings import Settings

#: What the phones' process may take beyond ``phones.limit_s``.
_GRACE_S = 3.0


def show_plan(settings: Settings, agent_id: str, text: str) -> int:
    """Print how an agent's phone would be told, and the document; returns the exit status.

    Raises:
        SetupError: there is no such agent, or a password cannot be had.
    """
    from firmware_profiles.catalogue import shipped
    from firmware_profiles.choosing import NoPlan, choose
    from firmware_profiles.documents import cisco_page, text_document
    from firmware_profiles.push_secrets import load_passwords
    from firmware_profiles.screen_text import trial_words

    _known(settings, agent_id)
    plan = choose(shipped(), settings, agent_id, {}, load_passwords(settings))
    if isinstance(plan, NoPlan):
        print(f"nothing would be shown: {plan.reason}", file=sys.stderr)
        return 1
    print(plan.reason, file=sys.stderr)
    for caution in plan.cautions:
        print(f"mind: {caution}", file=sys.stderr)
    said = trial_words(plan.language, text)
    if plan.method.document == "cisco_execute":
        print("the phone fetches this from our listener:", file=sys.stderr)
        body = cisco_page(plan.method, said)
    else:
        body = text_document(plan.method, said)
    print(body.decode(plan.method.encoding), end="")
    return 0


def push(settings: Settings, agent_id: str, text: str) -> int:
    """Let the running node show a few words; returns the exit status.

    Raises:
        SetupError: there is no such agent, or the node does not run.
    """
    _known(settings, agent_id)
    pushed = asyncio.run(
        ask_bus(
            settings.bus_path,
            ShowTest(request_id=request_id(), agent_id=agent_id, text=text[:1000]),
            ScreenPushed,
            settings.phones.limit_s + _GRACE_S,
            "the node does not answer, and it is what reaches the phones: start it (callshield "
            "serve) and try again as its user, or look at --dry-run",
        )
    )
    if not pushed.ok:
        print(f"not shown: {pushed.reason}", file=sys.stderr)
        return 1
    print(
        f"{pushed.profile}, {pushed.method}: taken in {pushed.took_ms:.0f} ms; whether it is seen, "
        "the phone does not say: look at it"
    )
    return 0


def _known(settings: Settings, agent_id: str) -> None:
    if agent_id not in settings.agents:
        raise SetupError(
            f"there is no agent {agent_id[:64]!r}: see [agents.ID] in the configuration"
        )
