"""``callshield doctor``: what will be shown on each agent's phone, and how; or why not."""

from __future__ import annotations

from collections.abc import Iterator

from callshield.errors import CallshieldError
from callshield.findings import Finding, note, ok, problem
from callshield.settings import Settings


def examine_phones(settings: Settings) -> Iterator[Finding]:
    """One line an agent, and one for each table of ``[phones.families]`` that nobody has."""
    from firmware_profiles.catalogue import shipped
    from firmware_profiles.choosing import NoPlan, choose
    from firmware_profiles.push_secrets import load_passwords

    if not settings.phones.enabled:
        yield ok("phone screens", "off (phones.enabled)")
        return
    catalogue = shipped()
    strangers = sorted(set(settings.phones.families) - set(catalogue.phones))
    if strangers:
        yield problem(
            "phone screens",
            f"phones.families.{strangers[0]}: no family is called that",
            f"write one of {', '.join(catalogue.phones)}",
        )
    try:
        passwords = load_passwords(settings)
    except CallshieldError as error:
        yield problem("phone screens", str(error), "without it no such phone can be pushed to")
        passwords = {}
    for agent_id in settings.agents:
        name = f"phone screen of {agent_id}"
        plan = choose(catalogue, settings, agent_id, {}, passwords)
        if isinstance(plan, NoPlan):
            if plan.expected or plan.profile_id == catalogue.generic.id:
                yield note(name, f"nothing is shown: {plan.reason}")
            else:
                yield problem(name, f"nothing can be shown: {plan.reason}", "see docs/screens.md")
            continue
        caution = f" ({'; '.join(plan.cautions)})" if plan.cautions else ""
        yield ok(name, plan.reason + caution)
