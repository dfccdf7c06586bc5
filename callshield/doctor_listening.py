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
#: For the manager interface to let us in, and for everything that is asked then.
LOGIN_WITHIN_S = 12.0
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
    from notifier.ami_client import AmiClient
    from notifier.ami_secret import load_secret
    from notifier.pbx_listening import Ourselves, judge
    from notifier.pbx_survey import survey

    say(f"logging in at the manager interface of {settings.ami.host}")
    up = asyncio.Event()
    reasons: list[str] = []

    def down(reason: str) -> None:
        reasons.append(reason)
        up.set()

    client = AmiClient(settings.ami, load_secret(settings.ami), on_up=up.set, on_down=down)
    client.start()
    try:
        async with asyncio.timeout(LOGIN_WITHIN_S):
            await up.wait()
        if not client.connected:
            raise CallshieldError(reasons[-1] if reasons else "no connection")
        async with asyncio.timeout(SURVEY_WITHIN_S):
            pbx = await survey(client, say)
    except TimeoutError:
        raise CallshieldError(
            f"the manager interface of {settings.ami.host} did not answer in time"
        ) from None
    finally:
        await client.close()
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
