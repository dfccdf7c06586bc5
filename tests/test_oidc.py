"""Signing in by OpenID Connect: a browser's round to a real provider, and every lie refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select

from callshield.errors import ConfigurationError
from callshield.settings import load_settings
from notifier import oidc_provider
from notifier.database import place_of, transact
from notifier.oidc import Attempts, Person
from notifier.oidc_error import ATTEMPT_S, TICKET_S, OidcError
from notifier.schema import tokens
from tests.notifier_kit import Desk, desk_in_process, write_config
from tests.oidc_provider import CLIENT_ID, SECRET, ProviderDouble


def toml(provider: ProviderDouble, folder: Path, port: int) -> str:
    secret = folder / "oidc.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    provider.redirect_url = f"http://127.0.0.1:{port}/api/v1/oidc/callback"
    return f"""
[oidc]
issuer = "{provider.issuer}"
client_id = "{CLIENT_ID}"
secret_file = "{secret}"
redirect_url = "{provider.redirect_url}"
[oidc.roles]
cs-council = "representative"
cs-leads = "supervisor"
cs-agents = "agent"
"""


class Round:
    """A node with a provider beside it, and a browser with its cookies."""

    def __init__(self, desk: Desk, provider: ProviderDouble, browser: httpx.AsyncClient) -> None:
        self.desk = desk
        self.provider = provider
        self.browser = browser

    async def to_provider(self) -> str:
        answer = await self.browser.get("/api/v1/oidc/login")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def back(self) -> str:
        """The address to which the provider sends the browser."""
        answer = await self.browser.get(await self.to_provider())
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def callback(self) -> httpx.Response:
        return await self.browser.get(await self.back())

    async def sign_in(self) -> dict[str, Any]:
        answer = await self.callback()
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/agent#signed-in"
        signed = await self.browser.post("/api/v1/oidc/token")
        assert signed.status_code == 200, signed.text
        found: dict[str, Any] = signed.json()
        return found

    async def refused(self, kind: str, status: int = 403) -> None:
        answer = await self.callback()
        assert answer.status_code == status, answer.text
        assert answer.json()["type"] == f"urn:callshield:problem:{kind}"
        assert (await self.browser.post("/api/v1/oidc/token")).status_code == 401


@pytest.fixture
async def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Round]:
    async with going_round(tmp_path, monkeypatch) as found:
        yield found


@asynccontextmanager
async def going_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str = ""
) -> AsyncIterator[Round]:
    provider = ProviderDouble()
    provider.claims["callshield_agent"] = "1001"
    port = provider.port
    from tests import notifier_kit

    port = notifier_kit.free_port()
    monkeypatch.setattr(notifier_kit, "free_port", lambda: port)
    async with (
        provider.running(),
        desk_in_process(tmp_path, store + toml(provider, tmp_path, port)) as desk,
        desk.http() as browser,
    ):
        yield Round(desk, provider, browser)


async def test_an_agent_signs_in_and_sees_the_own_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_toml: str
) -> None:
    async with going_round(tmp_path, monkeypatch, store_toml) as around:
        there = parse_qs(urlsplit(await around.to_provider()).query)
        assert there["response_type"] == ["code"]
        assert there["code_challenge_method"] == ["S256"]
        signed = await around.sign_in()
        assert (signed["role"], signed["agent_id"]) == ("agent", "1001")
        async with around.desk.http(signed["token"]) as http:
            me = (await http.get("/api/v1/node")).json()
            assert (me["role"], me["agent_id"]) == ("agent", "1001")
        rows = transact(
            place_of(around.desk.settings),
            lambda c: c.execute(select(tokens).where(tokens.c.source == "oidc")).mappings().all(),
        )
        [row] = rows
        assert "person-1" not in str(row)
        assert 0 < row["expires_ts"] - row["created_ts"] <= 8 * 3600
        # The ticket was good once.
        assert (await around.browser.post("/api/v1/oidc/token")).status_code == 401


async def test_roles_come_from_claims_the_first_line_first(around: Round) -> None:
    around.provider.claims["roles"] = ["other", "cs-agents", "cs-leads"]
    assert (await around.sign_in())["role"] == "supervisor"
    around.provider.claims["roles"] = "cs-council"
    assert (await around.sign_in())["role"] == "representative"
    around.provider.claims["roles"] = ["stranger"]
    await around.refused("oidc_role")
    del around.provider.claims["roles"]
    await around.refused("oidc_role")
    around.provider.claims |= {"roles": ["cs-agents"], "callshield_agent": "9999"}
    await around.refused("oidc_agent")


async def test_a_supervisor_who_signs_in_sees_the_own_teams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_AGENTS__1001__TEAM", "north")
    monkeypatch.setenv("CALLSHIELD_AGENTS__1002__TEAM", "south")
    people = "".join(f'[supervisors.{one}]\nuri = "sip:{one}@192.0.2.31:5060"\n' for one in "ad")
    teams = '[teams.north]\nsupervisors = ["a"]\n[teams.south]\nsupervisors = ["d"]\n'
    async with going_round(tmp_path, monkeypatch, people + teams) as around:
        claims = around.provider.claims
        claims["roles"] = ["cs-leads"]

        async def seen() -> tuple[str, list[str]]:
            signed = await around.sign_in()
            async with around.desk.http(signed["token"]) as http:
                me = (await http.get("/api/v1/node")).json()
                calls = (await http.get("/api/v1/calls")).json()["calls"]
            return me["supervisor_id"], sorted(one["agent_id"] for one in calls)

        async with (
            around.desk.bridge() as bridge,
            around.desk.console(around.desk.supervisor) as every,
        ):
            for agent_id in ("1001", "1002"):
                await every.until("call.answered", call_id=bridge.start_call(agent_id))
            assert await seen() == ("", ["1001", "1002"]), "negative control: tied to nobody"
            claims["callshield_supervisor"] = "d"
            assert await seen() == ("d", ["1002"])
            for wrong in ("nobody", ["d"], ""):
                claims["callshield_supervisor"] = wrong
                await around.refused("oidc_supervisor")


def _with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {**claims, **changed}


def _without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


@pytest.mark.parametrize(
    "lie",
    [
        _with(iss="http://127.0.0.1:1"),
        _with(aud="somebody-else"),
        _with(aud=["callshield", "somebody-else"], azp="somebody-else"),
        _with(nonce="of another attempt"),
        _with(exp=1_600_000_000, iat=1_599_999_000),
        _with(iat=4_000_000_000, exp=4_000_001_000),
        _with(at_hash="AAAA"),
        *[_without(name) for name in ("iss", "aud", "nonce", "exp", "iat", "sub")],
    ],
    ids=["iss", "aud", "azp", "nonce", "expired", "future", "at_hash"]
    + [f"no {name}" for name in ("iss", "aud", "nonce", "exp", "iat", "sub")],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    around: Round, lie: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    around.provider.lie = lie
    await around.refused("oidc_token")
    # Negative control: the same person without the lie.
    around.provider.lie = lambda claims: claims
    assert (await around.sign_in())["role"] == "agent"


async def test_a_forged_signature_and_none_are_refused(around: Round) -> None:
    around.provider.forge = True
    await around.refused("oidc_token")
    around.provider.forge = False
    around.provider.algorithm = "none"
    await around.refused("oidc_token")


async def test_keys_that_change_are_fetched_again_but_not_for_every_forger(
    around: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    await around.sign_in()
    assert around.provider.keys_asked == 1
    await around.sign_in()
    assert around.provider.keys_asked == 1
    monkeypatch.setattr(oidc_provider, "_AGAIN_S", -1.0)
    around.provider.change_keys()
    await around.sign_in()
    assert around.provider.keys_asked == 2
    monkeypatch.setattr(oidc_provider, "_AGAIN_S", 3600.0)
    around.provider.forge = True
    for _ in range(3):
        await around.refused("oidc_token")
    assert around.provider.keys_asked == 2


async def test_an_answer_that_was_not_asked_for_is_refused(around: Round) -> None:
    url = await around.back()
    async with around.desk.http() as stranger:
        # The attacker's answer in the victim's browser, and the victim's in the attacker's.
        assert (await stranger.get(url)).status_code == 400
    assert (await around.browser.get(url)).status_code == 400, "used up by the stranger"
    assert (await around.browser.get("/api/v1/oidc/callback?state=x&code=y")).status_code == 400
    assert around.provider.token_requests == 0
    url = await around.back()
    assert (await around.browser.get(url)).status_code == 303
    assert (await around.browser.get(url)).status_code == 400, "an answer is good once"
    assert (await around.browser.post("/api/v1/oidc/token")).status_code == 200
    other = (await around.back()).replace("iss=", "iss=http%3A%2F%2F127.0.0.1%3A1&x=")
    assert (await around.browser.get(other)).json()["type"].endswith(":oidc_issuer")
    around.provider.denies = True
    await around.refused("oidc_denied")


async def test_a_code_of_another_verifier_is_refused(around: Round) -> None:
    """PKCE: a stolen code in another attempt of ours is worth nothing."""
    stolen = parse_qs(urlsplit(await around.back()).query)["code"][0]
    mine = urlsplit(await around.back())
    own = parse_qs(mine.query)["code"][0]
    answer = await around.browser.get(mine.geturl().replace(own, stolen))
    assert answer.status_code == 502
    assert answer.json()["type"].endswith(":oidc_provider")


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://192.0.2.1/authorize"},
        {"authorization_endpoint": None},
    ],
)
async def test_a_provider_that_is_not_who_it_was_asked_for_is_refused(
    around: Round, discovery: dict[str, Any]
) -> None:
    around.provider.discovery = discovery
    answer = await around.browser.get("/api/v1/oidc/login")
    assert answer.status_code == 502
    assert "evil" not in answer.text


async def test_the_cookies_are_not_for_scripts_and_no_token_stands_in_a_url(around: Round) -> None:
    login = await around.browser.get("/api/v1/oidc/login")
    assert "httponly" in login.headers["set-cookie"].lower()
    assert "samesite=lax" in login.headers["set-cookie"].lower()
    back = await around.browser.get(login.headers["location"])
    done = await around.browser.get(back.headers["location"])
    cookies = [value.lower() for value in done.headers.get_list("set-cookie")]
    assert any("callshield_ticket" in value and "samesite=strict" in value for value in cookies)
    assert all("httponly" in value for value in cookies if "ticket" in value)
    assert "cs_" not in done.headers["location"]
    foreign = await around.browser.post(
        "/api/v1/oidc/token", headers={"Origin": "https://evil.example"}
    )
    assert foreign.status_code == 403
    assert (await around.browser.post("/api/v1/oidc/token")).status_code == 200


async def test_without_a_provider_there_is_no_sign_in(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.http() as http:
        for send, path in ((http.get, "login"), (http.get, "callback"), (http.post, "token")):
            answer = await send(f"/api/v1/oidc/{path}")
            assert answer.status_code == 404
            assert answer.json()["type"].endswith(":oidc_off")


def test_attempts_and_tickets_end_by_themselves_and_when_the_clock_is_set_back() -> None:
    attempts = Attempts()
    late, early = attempts.begin("/agent", 1000.0), attempts.begin("/agent", 1000.0)
    good = attempts.begin("/agent", 1000.0)
    with pytest.raises(OidcError):
        attempts.come_back(late.state, late.browser, 1000.0 + ATTEMPT_S + 1)
    with pytest.raises(OidcError):
        attempts.come_back(early.state, early.browser, 900.0)
    assert attempts.come_back(good.state, good.browser, 1000.0 + ATTEMPT_S) == good
    person = Person("agent", "1001", "")
    assert attempts.redeem(attempts.ticket(person, 0.0), TICKET_S) == person
    with pytest.raises(OidcError):
        attempts.redeem(attempts.ticket(person, 0.0), TICKET_S + 1)
    states = {attempts.begin("/agent", 0.0).state for _ in range(3000)}
    assert len(states) == 3000
    assert len(attempts._open) <= 1000


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ('issuer = "http://login.example"', "https"),
        ('redirect_url = "https://desk.example/elsewhere"', "/api/v1/oidc/callback"),
        ('scopes = ["profile"]', "openid"),
        ('client_id = ""', "client_id"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    tmp_path: Path, changed: str, says: str
) -> None:
    lines = toml(ProviderDouble(), tmp_path, 8080).splitlines()
    key = changed.split(" ")[0]
    kept = [line for line in lines if not line.startswith(key)]
    kept.insert(kept.index("[oidc]") + 1, changed)
    with pytest.raises(ConfigurationError, match=says):
        load_settings(write_config(tmp_path, 8080, "\n".join(kept)))
