"""Rate limits: who asks too much gets 429 and a time, nobody else notices, memory is bounded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import websockets
from hypothesis import given
from hypothesis import strategies as st

from callshield.settings_webhooks import LimitSettings
from notifier import stream
from notifier.limits import Limits
from notifier.rate import Rate, address_of
from tests.notifier_kit import WITHIN_S, desk_in_process, new_call_id


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    rate = Rate(per_s=2.0, burst=3)
    assert [rate.wait_s("a", 10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert rate.wait_s("a", 10.0) == 0.5
    assert rate.wait_s("b", 10.0) == 0.0, "another one has his own"
    assert rate.wait_s("a", 10.25) == 0.25
    assert rate.wait_s("a", 10.5) == 0.0
    assert rate.wait_s("a", 1000.0) == 0.0
    assert rate.wait_s("a", 999.0) == 0.0, (
        "a clock that steps back fills nothing and breaks nothing"
    )


def test_a_million_askers_take_bounded_memory() -> None:
    rate = Rate(per_s=1.0, burst=2, askers=100)
    for number in range(10_000):
        rate.wait_s(number, 0.0)
        rate.wait_s("busy", 0.0)
        assert len(rate) <= 100
    assert rate.wait_s("busy", 0.0) > 0, "who keeps asking is not forgotten"


@given(st.lists(st.floats(0.0, 5.0), max_size=200), st.integers(1, 20), st.floats(0.1, 50.0))
def test_never_more_than_burst_and_rate_allow(gaps: list[float], burst: int, per_s: float) -> None:
    rate, now, passed = Rate(per_s, burst), 0.0, 0
    for gap in gaps:
        now += gap
        passed += rate.wait_s("a", now) == 0.0
    assert passed <= burst + per_s * now + 1e-6


def test_addresses_of_one_household_are_one() -> None:
    assert address_of("192.0.2.7") == "192.0.2.7"
    assert address_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_of("2001:db8:1:2:3:4:5:6") == address_of("2001:db8:1:2::1")
    assert address_of("2001:db8:1:2::1") != address_of("2001:db8:1:3::1")
    assert len(address_of("x" * 1000)) == 64


def test_strangers_at_an_address_do_not_keep_its_good_tokens_from_asking() -> None:
    limits = Limits(LimitSettings(address_per_s=1, address_burst=2), clock=lambda: 0.0)

    def ask(token: str) -> bool:
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {
            "type": "http",
            "path": "/api/v1/calls/x/actions",
            "client": ("192.0.2.7", 1),
            "headers": headers,
        }
        return limits.refusal(scope) is None

    from starlette.datastructures import Headers

    limits.found_good(Headers({"authorization": "Bearer cs_good"}))
    assert [ask("cs_forged1"), ask(""), ask("cs_forged2"), ask("")] == [True, True, False, False]
    assert ask("cs_good")
    assert ask(" cs_good ")


async def test_a_token_that_asks_too_much_gets_429_and_end_still_works(tmp_path: Path) -> None:
    limits = "[limits]\ntoken_per_s = 0.001\ntoken_burst = 5"
    async with desk_in_process(tmp_path, limits) as desk:
        async with desk.http(desk.agent) as http:
            answers = [await http.get("/api/v1/calls") for _ in range(7)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
            refused = answers[-1]
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:callshield:problem:too_many_requests"
            assert int(refused.headers["retry-after"]) >= 1
            # What protects the agent is counted apart.
            path = f"/api/v1/calls/{new_call_id()}/actions"
            warned = [await http.post(path, json={"action": "warn"}) for _ in range(8)]
            assert [answer.status_code for answer in warned[-2:]] == [429, 429]
            for action in ["end", "help"] * 10:
                assert (await http.post(path, json={"action": action})).status_code == 404
            assert (await http.get("/healthz")).status_code == 200
        async with desk.http(desk.other) as http:
            assert (await http.get("/api/v1/calls")).status_code == 200, "nobody else notices"
        async with desk.http() as http:
            page = (await http.get("/metrics")).text
            assert 'callshield_requests_refused_total{reason="too_many"} 5.0' in page


async def test_an_address_is_counted_behind_a_trusted_proxy_only(tmp_path: Path) -> None:
    limits = '[limits]\naddress_per_s = 0.001\naddress_burst = 3\ntrusted_proxies = ["{}"]'

    async def statuses(folder: Path, proxies: str) -> list[int]:
        async with desk_in_process(folder, limits.format(proxies)) as desk, desk.http() as http:
            return [
                (
                    await http.get("/agent", headers={"X-Forwarded-For": f"203.0.113.{n}"})
                ).status_code
                for n in range(5)
            ]

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert await statuses(tmp_path / "a", "127.0.0.1") == [200] * 5
    assert await statuses(tmp_path / "b", "192.0.2.1") == [200, 200, 200, 429, 429]


async def test_consoles_of_one_token_are_bounded_and_a_closed_one_gives_its_place(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, "[limits]\nconsoles_per_token = 2") as desk,
        desk.console(desk.agent) as first,
        desk.console(desk.agent),
    ):
        async with websockets.connect(desk.url()) as third:
            await third.send(json.dumps({"token": desk.agent}))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await third.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == stream.TOO_MANY
        async with desk.console(desk.other):
            pass
        await first.connection.close()
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    async with desk.console(desk.agent):
                        break
                except websockets.ConnectionClosed:
                    await asyncio.sleep(0.02)


async def test_every_route_says_in_the_schema_that_it_may_answer_429(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path, "") as desk, desk.http() as http:
        schema = (await http.get("/openapi.json")).json()
    silent = [
        f"{method} {path}"
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if "429" not in operation["responses"]
    ]
    assert silent == []
