"""Bodies and headers that nobody sends by mistake: a clear refusal, and the node goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notifier_kit import desk_in_process, new_call_id

DEEP = 20_000
BODIES = {
    "deep list": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"action":' * 5000 + b"1" + b"}" * 5000,
    "huge number": b'{"action": ' + b"9" * 50_000 + b"}",
    "not a number": b'{"action": NaN}',
    "infinity": b'{"action": 1e999}',
    "half a surrogate pair": b'{"action": "\\ud800"}',
    "invalid UTF-8": b'{"action": "\xff\xfe"}',
    "a long key": b'{"' + b"k" * 60_000 + b'": 1}',
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(6000)) + b"}",
    "a key twice": b'{"action": "end", "action": "no"}',
    "nothing": b"",
    "a zero byte": b"\x00",
}


@pytest.mark.parametrize("name", BODIES)
async def test_no_body_is_a_fault_of_the_node(tmp_path: Path, name: str) -> None:
    async with desk_in_process(tmp_path) as desk, desk.http(desk.agent) as http:
        url = f"/api/v1/calls/{new_call_id()}/actions"
        answer = await http.post(
            url, content=BODIES[name], headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 5_000
        # The control: the node goes on, and a good body gets further.
        good = await http.post(url, json={"action": "end"})
        assert good.status_code == 404


async def test_strange_headers_are_no_fault_either(tmp_path: Path) -> None:
    strange = [
        {"Authorization": "Bearer " + "x" * 20_000},
        {"Authorization": "Bearer cs_" + "\udcff".encode("utf-8", "surrogateescape").hex()},
        {"Authorization": "Bearer"},
        {"Authorization": "cs_"},
        {"X-Forwarded-For": "not an address," * 50 + "x"},
        {"X-Forwarded-For": "::1%" + "z" * 500},
        {"Origin": "http://[::1"},
    ]
    async with desk_in_process(tmp_path) as desk, desk.http() as http:
        for headers in strange:
            answer = await http.get("/api/v1/calls", headers=headers)
            assert 400 <= answer.status_code < 500, (headers, answer.text)
        raw = await http.get("/api/v1/calls", headers=[(b"Authorization", b"Bearer \xff\xfe")])
        assert raw.status_code == 401
