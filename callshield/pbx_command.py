"""``callshield pbx``: try the PBX's manager interface, and send a NOTIFY by it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from callshield.errors import CallshieldError
from callshield.settings import load_settings

pbx_app = typer.Typer(help="The PBX's manager interface (AMI).", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")


@pbx_app.command("check")
def pbx_check(config: Config = DEFAULT_CONFIG) -> None:
    """Log in and ask for every right and name that is needed; exit status 1 if one is missing."""
    from callshield.doctor_report import Report
    from callshield.logs import configure_logs
    from notifier.pbx_check import check

    configure_logs("pbx", level="error")
    findings = asyncio.run(check(load_settings(config)))
    report = Report(as_json=False)
    for finding in findings:
        report.show(finding)
    raise typer.Exit(report.finish())


@pbx_app.command("notify")
def pbx_notify(
    endpoint: Annotated[str, typer.Argument(help="PJSIP endpoint at the PBX.")],
    event: Annotated[str, typer.Argument(help="Event header, e.g. check-sync.")],
    content_type: Annotated[str, typer.Option(help="Of the body, e.g. application/xml.")] = "",
    body: Annotated[Path | None, typer.Option(help="File with the body; - for input.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Further header, as 'Name: value'; several.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Let the PBX send a SIP NOTIFY to a phone; the manager user needs the right *system*."""
    from callshield.logs import configure_logs
    from notifier.pbx_check import logged_in
    from notifier.pjsip_notify import send_notify

    configure_logs("pbx", level="error")
    headers = {}
    for line in header or []:
        name, colon, value = line.partition(":")
        if not colon:
            raise CallshieldError(f"a header is 'Name: value', not {line[:40]!r}")
        headers[name.strip()] = value.strip()
    text = ""
    if body is not None:
        try:
            text = sys.stdin.read() if str(body) == "-" else body.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CallshieldError(f"the body {body} cannot be read as UTF-8 ({error})") from None

    async def send() -> None:
        async with logged_in(load_settings(config)) as client:
            await send_notify(client, endpoint, event, content_type, text, headers)

    asyncio.run(send())
    print(f"the PBX sends {event} to {endpoint}")
