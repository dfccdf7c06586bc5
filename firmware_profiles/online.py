"""What a phone answers when it is asked over HTTP, without telling it anything.

Only addresses inside the configured networks of the phones are asked, never a name; no redirect is
followed, no proxy of the environment used, no credentials sent, at most 64 KiB read, and all of it
ends after two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from callshield.errors import ConfigurationError, SetupError
from callshield.findings import Finding, note, ok, problem
from firmware_profiles.schema import Probe, Profile

_LARGEST_BYTES = 64 * 1024
_LIMIT_S = 2.0


#: A phone to which nothing is pushed by HTTP may answer as it likes.
_ANYTHING = Probe(path="/", expect=[200, 301, 302, 303, 307, 308, 401, 403, 404])


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    challenge: str
    server: str
    whole: bool


def phone_address(text: str, networks: Sequence[str]) -> str:
    """An address that may be asked.

    Args:
        text: as an operator wrote it.
        networks: ``sip.phone.networks``.

    Raises:
        ConfigurationError: no network of phones is configured.
        SetupError: it is no address, or outside the networks.
    """
    if not networks:
        raise ConfigurationError(
            [("configuration", "sip.phone.networks", "nothing", "the networks of the phones")]
        )
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise SetupError(f"{text[:80]!r} is no IPv4 or IPv6 address: names are not asked") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise SetupError(f"{text[:80]!r} has a zone: name the address alone")
        # ::ffff:192.0.2.1 reaches 192.0.2.1.
        address = address.ipv4_mapped or address
    if not any(address in ipaddress.ip_network(network, strict=False) for network in networks):
        raise SetupError(
            f"{address} is outside the phones' networks ({', '.join(networks)}): not asked; "
            "sip.phone.networks says where phones are"
        )
    return str(address)


async def ask(
    profile: Profile, address: str, *, port: int = 80, limit_s: float = _LIMIT_S
) -> list[Finding]:
    """Ask a phone whether its ways of pushing are open.

    Args:
        profile: its family.
        address: from :func:`phone_address`.
        port: of its web server.
        limit_s: for each question.
    """
    host = f"[{address}]" if ":" in address else address
    findings: list[Finding] = []
    asked = [(method.id, method.probe) for method in profile.push if method.probe is not None]
    async with httpx.AsyncClient(
        follow_redirects=False, trust_env=False, timeout=limit_s, max_redirects=0
    ) as client:
        for name, probe in asked or [("web server", _ANYTHING)]:
            url = f"http://{host}:{port}{probe.path}"
            try:
                answer = await _answer(client, probe, url, limit_s)
            except TimeoutError:
                findings.append(_slow(name, limit_s))
                break
            except httpx.TimeoutException:
                findings.append(_slow(name, limit_s))
                break
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                findings.append(
                    problem(
                        name,
                        f"no answer from {address}, port {port}: {_plain(str(error))}",
                        "switch the phone's web server on, or look at the firewall between",
                    )
                )
                break
            findings.append(_judge(name, probe, answer))
    if not asked:
        findings.append(
            note(
                "push",
                f"{profile.name} has no way of pushing that could be asked without showing it",
                "check an exported configuration file",
            )
        )
    return findings


async def _answer(client: httpx.AsyncClient, probe: Probe, url: str, limit_s: float) -> _Answer:
    # httpx limits each read; a phone that sends a byte a second would go on for ever.
    async with asyncio.timeout(limit_s), client.stream(probe.method, url) as response:
        whole = True
        read = 0
        with contextlib.suppress(httpx.DecodingError):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _LARGEST_BYTES:
                    whole = False
                    break
        scheme = response.headers.get("www-authenticate", "").partition(" ")[0].lower()
        return _Answer(
            response.status_code, scheme, _plain(response.headers.get("server", "")), whole
        )


def _slow(name: str, limit_s: float) -> Finding:
    return problem(
        name,
        f"no whole answer within {limit_s:g} s",
        "a warning would come too late: look at the network, or restart the phone",
    )


def _judge(name: str, probe: Probe, answer: _Answer) -> Finding:
    said = f"{probe.path}: {answer.status}" + (f" ({answer.server})" if answer.server else "")
    if not answer.whole:
        return problem(
            name, f"{said} and more than {_LARGEST_BYTES // 1024} KiB", "is this a phone at all?"
        )
    unexpected = answer.status not in probe.expect
    # What no manual says may be otherwise on a phone that is in order.
    wrong = problem if probe.verified else note
    if unexpected and 300 <= answer.status < 400:
        return problem(
            name,
            f"{said}, a redirect, which is not followed",
            "let the phone take plain HTTP there, or push by SIP",
        )
    if unexpected and answer.status == 404:
        return wrong(name, f"{said}: this way of pushing is off, or the phone is another model",
                       "set the keys that `callshield profiles render` writes")  # fmt: skip
    if unexpected:
        if probe.challenge and answer.status < 300:
            return wrong(
                name,
                f"{said}: the phone takes this from anybody",
                "let it ask for a name and password",
            )
        return wrong(
            name,
            f"{said}, where {' or '.join(map(str, probe.expect))} was expected",
            "look at what the phone's log says of it",
        )
    if answer.status == 401 and probe.challenge and answer.challenge != probe.challenge:
        return wrong(
            name,
            f"{said}, asking for {answer.challenge or 'nothing'} instead of {probe.challenge}",
            "the firmware is of another kind: name the right model in agents.ID.phone_model",
        )
    asks = f", asks for {answer.challenge}" if answer.challenge else ""
    return ok(name, f"{said}{asks}")


def _plain(text: str) -> str:
    """Words of a stranger, for a screen."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:80]
