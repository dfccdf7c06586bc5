"""``callshield profiles``: which phones are known, what to write for them, what would fail."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callshield.errors import AmiError, SetupError
from callshield.findings import Finding, note, ok, problem
from callshield.phone_urls import has_listener, token_findings, with_urls
from callshield.settings import Settings, load_settings
from callshield.settings_sip import SIP_URI, uri_transport

if TYPE_CHECKING:
    from firmware_profiles.catalogue import Catalogue
    from firmware_profiles.matching import Match
    from firmware_profiles.rendering import Values
    from firmware_profiles.schema import Profile
    from notifier.phones import Phones

profiles_app = typer.Typer(help="Phones and headsets (docs/phones.md).", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(?::(?P<port>\d{1,5}))?")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,253}(/[A-Za-z0-9._~/%-]{0,200})?")


class KeysOption(StrEnum):
    """What a phone's keys do."""

    auto = "auto"
    dtmf = "dtmf"
    url = "url"


@profiles_app.command("list")
def profiles_list() -> None:
    """List families of phones and headsets."""
    from firmware_profiles.catalogue import shipped

    catalogue = shipped()
    for profile in catalogue.phones.values():
        push = ", ".join(method.id for method in profile.push if method.document) or "-"
        print(f"{profile.id:18} {profile.name:42} screen push: {push}")
    for headset in catalogue.headsets.values():
        print(f"{headset.id:18} {headset.name:42} USB 0x{headset.usb.vendor_id:04x}")


@profiles_app.command("match")
def profiles_match(
    text: Annotated[str, typer.Argument(help="A User-Agent, or a model.")],
) -> None:
    """Say which family a User-Agent means, and why."""
    from firmware_profiles.catalogue import shipped
    from firmware_profiles.matching import match

    found = match(shipped(), text)
    model = f", model {found.model}" if found.model else ""
    firmware = f", firmware {found.firmware}" if found.firmware else ""
    print(f"{found.profile.id}: {found.profile.name}{model}{firmware}")
    print(f"because {found.reason}")


@profiles_app.command("render")
def profiles_render(
    model: Annotated[str, typer.Argument(help="A model, a User-Agent, or a profile's id.")],
    agent: Annotated[str, typer.Option(help="Agent id of [agents.ID].")],
    proxy: Annotated[
        str,
        typer.Option(
            help="HOST[:PORT] where the phone registers, a PBX; absent: Callshield takes its calls."
        ),
    ] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="Write the account's password from this file (mode 0600).")
    ] = None,
    push_password_file: Annotated[
        Path | None, typer.Option(help="Write the password for pushing from this file, too.")
    ] = None,
    action_url: Annotated[
        str, typer.Option(help="Where the phone tells its events; our listener when absent.")
    ] = "",
    authentication_url: Annotated[
        str, typer.Option(help="Where a Cisco phone asks who may push; our listener when absent.")
    ] = "",
    keys: Annotated[
        KeysOption,
        typer.Option(
            help="What the keys for end and help do: send the code, call our listener, or (auto) "
            "the first where the phone can."
        ),
    ] = KeysOption.auto,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print the provisioning fragment of one agent's phone, without secrets."""
    from firmware_profiles.catalogue import shipped
    from firmware_profiles.rendering import render

    settings = load_settings(config)
    catalogue = shipped()
    found = _known(catalogue, model)
    values = with_urls(values_of(settings, agent, proxy), settings)
    values = replace(
        values,
        keys=keys.value,
        password=_secret(password_file, "--password-file"),
        push_password=_secret(push_password_file, "--push-password-file"),
        action_url=_url(action_url, "--action-url") or values.action_url,
        authentication_url=_url(authentication_url, "--authentication-url")
        or values.authentication_url,
    )
    print(render(found.profile, values), end="")


@profiles_app.command("check")
def profiles_check(
    file: Annotated[
        Path | None, typer.Argument(help="A phone's configuration; absent: every agent's phone.")
    ] = None,
    phone: Annotated[str, typer.Option(help="Ask the phone at this address.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of its web server.")] = 80,
    model: Annotated[str, typer.Option(help="A model; absent: found out.")] = "",
    agent: Annotated[str, typer.Option(help="Whose phone it is.")] = "",
    proxy: Annotated[str, typer.Option(help="As with `render`.")] = "",
    pbx: Annotated[
        bool, typer.Option("--pbx", help="Ask the PBX, too, which phone each agent has.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Find what would fail silently; exit status 1 if anything would."""
    from callshield.doctor_report import Report
    from firmware_profiles.catalogue import shipped

    catalogue = shipped()
    report = Report(as_json=as_json)
    if file is not None:
        findings = _of_file(catalogue, file, model, agent, proxy, config)
    elif phone:
        findings = _of_phone(catalogue, load_settings(config), phone, port, model, agent)
    else:
        settings = load_settings(config)
        findings = of_agents(catalogue, settings, _phones(settings, ask_pbx=pbx))
    for finding in findings:
        report.show(finding)
    raise typer.Exit(report.finish())


@profiles_app.command("push")
def profiles_push(
    agent: Annotated[str, typer.Option(help="Agent id of [agents.ID].")],
    text: Annotated[str, typer.Option(help="Instead of our own words.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Show a few words on an agent's phone for a few seconds; exit status 1 if it took none."""
    from callshield.push_command import push, show_plan

    settings = load_settings(config)
    say = show_plan if dry_run else push
    raise typer.Exit(say(settings, agent, text))


def values_of(settings: Settings, agent_id: str, proxy: str = "") -> Values:
    """What the templates of an agent's phone are filled with; no secrets.

    Raises:
        SetupError: there is no such agent, or ``proxy`` is no HOST[:PORT].
    """
    from firmware_profiles.rendering import Values

    agent = settings.agents.get(agent_id)
    if agent is None:
        raise SetupError(
            f"there is no agent {agent_id[:64]!r}: see [agents.ID] in the configuration"
        )
    side = settings.sip.phone
    transport = uri_transport(agent.uri)
    uri = SIP_URI.match(agent.uri)
    if ipaddress.ip_address(side.signalling_advertised).is_unspecified:
        raise SetupError(
            f"sip.phone.bind is {side.bind}: phones need an address; write it into "
            "sip.phone.advertised"
        )
    host, port = side.signalling_advertised, side.tls.port if transport == "tls" else side.port
    if proxy:
        match = _HOST.fullmatch(proxy)
        if match is None or not 0 < int(match["port"] or 5060) < 65536:
            raise SetupError(f"--proxy is a HOST[:PORT], not {proxy[:80]!r}")
        host = match["host"].strip("[]")
        port = int(match["port"] or (5061 if transport == "tls" else 5060))
    codecs = [
        codec for codec in side.codecs if codec in ("PCMU", "PCMA") or not agent.hearing_protection
    ]
    return Values(
        agent=agent_id,
        user=uri["user"] if uri else agent_id,
        proxy=host,
        proxy_port=port,
        register=bool(proxy),
        us=side.signalling_advertised,
        transport=transport,
        srtp=(agent.srtp or side.srtp) != "off",
        codecs=codecs,
        end_code=settings.sip.end_code,
        help_code=settings.sip.help_code,
        language=settings.node.language,
    )


def of_agents(catalogue: Catalogue, settings: Settings, phones: Phones) -> list[Finding]:
    """What configuration and PBX say of every agent's phone, and of the headsets."""
    from firmware_profiles.matching import match

    findings: list[Finding] = []
    for agent_id, agent in settings.agents.items():
        name = f"agent {agent_id}"
        phone = phones.get(agent_id)
        if not phone.model:
            told = "the PBX (--pbx)" if agent.endpoint else "the phone itself, when it answers"
            findings.append(note(name, f"no phone_model: {told} says what it is"))
        else:
            found = match(catalogue, phone.model)
            if found.profile.kind == "generic":
                findings.append(
                    note(
                        name,
                        f"{phone.model!r} ({phone.source}) is no phone known here: {found.reason}",
                        "nothing will be shown on its screen; see `callshield profiles list`",
                    )
                )
            else:
                said = f"{found.profile.name}, says the {phone.source}: {found.reason}"
                findings.append(ok(name, said))
    for name, headset in settings.headsets.items():
        subject = f"headset {name}"
        if headset.profile and headset.profile not in catalogue.headsets:
            known = ", ".join(catalogue.headsets)
            findings.append(
                problem(subject, f"no profile {headset.profile!r}", f"write one of {known}")
            )
        elif headset.calibration_db_spl_at_0dbfs is None:
            findings.append(
                note(
                    subject,
                    "never measured: the dose of whoever wears it is an estimate",
                    "measure it (docs/hearing.md)",
                )
            )
        else:
            findings.append(
                ok(subject, f"{headset.calibration_db_spl_at_0dbfs:g} dB SPL at full scale")
            )
    return findings


def _phones(settings: Settings, *, ask_pbx: bool) -> Phones:
    """Which phone each agent has: from the configuration, and from the PBX that hides it."""
    from notifier.phones import Phones

    phones = Phones(settings.agents)
    if ask_pbx:
        from callshield.logs import configure_logs
        from notifier.pbx_check import logged_in

        async def ask() -> None:
            async with logged_in(settings) as client:
                answer = await client.request("PJSIPShowContacts")
                if not answer.ok:
                    raise AmiError(f"the PBX does not list the phones: {answer.text}")
                phones.contacts(answer.items)

        configure_logs("profiles", level="error")
        asyncio.run(ask())
    return phones


def _of_file(
    catalogue: Catalogue, file: Path, model: str, agent: str, proxy: str, config: Path
) -> list[Finding]:
    from firmware_profiles.conformance import check_file, recognise
    from firmware_profiles.reading import LARGEST_BYTES

    try:
        with file.open("rb") as opened:
            raw = opened.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}") from None
    profile: Profile = _known(catalogue, model).profile if model else recognise(catalogue, raw)
    findings: list[Finding] = [ok("family", f"{profile.name} ({profile.id})")]
    values: Values | None = None
    ours: list[Finding] = []
    if agent:
        settings = load_settings(config)
        values = values_of(settings, agent, proxy)
        if has_listener(settings):
            values = with_urls(values, settings, make=False)
            ours = token_findings(settings, profile, raw, agent)
    else:
        findings.append(
            note("addresses", "no --agent: addresses and codes are only looked for, not compared")
        )
    # Whose address it is says more than that it is another.
    worse = {finding.name.lower() for finding in ours if not finding.ok}
    judged = check_file(profile, values, raw)
    return [
        *findings,
        *(finding for finding in judged if finding.name.lower() not in worse),
        *ours,
    ]


def _of_phone(
    catalogue: Catalogue, settings: Settings, phone: str, port: int, model: str, agent: str
) -> list[Finding]:
    from firmware_profiles.online import ask, phone_address

    address = phone_address(phone, settings.sip.phone.networks)
    model = model or (settings.agents[agent].phone_model if agent in settings.agents else "")
    if not model:
        raise SetupError("which phone is it? Name it by --model, or an --agent with a phone_model")
    found = _known(catalogue, model)
    return [
        ok("family", f"{found.profile.name}: {found.reason}"),
        *asyncio.run(ask(found.profile, address, port=port)),
    ]


def _known(catalogue: Catalogue, model: str) -> Match:
    """The profile of a model that an operator named: a wrong name is an error here."""
    from firmware_profiles.matching import match

    found = match(catalogue, model)
    if found.profile.kind == "generic" and model != catalogue.generic.id:
        raise SetupError(
            f"{model[:80]!r}: {found.reason}; see `callshield profiles list`, or name it generic"
        )
    return found


def _secret(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    from callshield.private_file import read_private

    return read_private(path, option, SetupError).rstrip("\r\n")


def _url(text: str, option: str) -> str:
    if text and not _URL.fullmatch(text):
        raise SetupError(f"{option} is an address like http://192.0.2.10/phones, not {text[:80]!r}")
    return text
