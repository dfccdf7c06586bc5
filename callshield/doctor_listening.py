"""The part of ``callshield doctor --pbx`` that asks how the PBX itself can listen or record."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import replace

from callshield.errors import CallshieldError
from callshield.findings import Finding, note, problem
from callshield.settings import Settings

SUBJECT = "listening and recording at the PBX"
#: For everything that is asked of the manager interface.
SURVEY_WITHIN_S = 60.0


async def examine_listening(settings: Settings, say: Callable[[str], None]) -> list[Finding]:
    """Findings on every way to listen or record; without ``[ami]`` what to look for by hand."""
    from notifier.pbx_listening import by_hand

    if not settings.ami.enabled:
        untold = note(
            "not asked",
            "[ami] is not configured, so the PBX was not asked; look at each of these by hand",
            "give [ami] host and a manager user with write=system,reporting (docs/pbx/doctor.md)",
        )
        return [replace(finding, subject=SUBJECT) for finding in (untold, *by_hand())]
    try:
        findings = await _ask(settings, say)
    except CallshieldError as error:
        failed = problem("manager interface", str(error), "mend this, or look by hand:")
        findings = [failed, *by_hand()]
    return [replace(finding, subject=SUBJECT) for finding in findings]


async def _ask(settings: Settings, say: Callable[[str], None]) -> list[Finding]:
    from notifier.pbx_check import logged_in
    from notifier.pbx_listening import Ourselves, judge
    from notifier.pbx_survey import survey

    say(f"logging in at the manager interface of {settings.ami.host}")
    async with logged_in(settings) as client, asyncio.timeout(SURVEY_WITHIN_S):
        pbx = await survey(client, say)
    return judge(
        pbx,
        Ourselves(
            manager_user=settings.ami.username,
            addresses=_our_addresses(settings),
            mutes_mixmonitor=settings.ami.pause_pbx_recording,
        ),
    )


def _our_addresses(settings: Settings) -> tuple[str, ...]:
    """By which the PBX may know our trunk."""
    side = settings.sip.pbx
    found = dict.fromkeys((side.bind, side.signalling_advertised))
    return tuple(a for a in found if not ipaddress.ip_address(a).is_unspecified)
