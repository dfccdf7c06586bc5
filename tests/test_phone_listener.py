"""The listener under phones, strangers, slow and many: a first press always gets through."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from callshield.errors import CallshieldError, ConfigurationError
from callshield.messages_phones import PhoneKey, PhoneKeyDone
from callshield.settings import Settings
from firmware_profiles import listener as listener_module
from firmware_profiles import phone_server, screen_keys
from firmware_profiles.documents import HOLD_S
from firmware_profiles.listener import Listener, own_address, start_listener
from firmware_profiles.phone_answers import key_text
from firmware_profiles.phone_tokens import CISCO_PATH, PHONE_ACTIONS, PhoneTokens, load_tokens
from firmware_profiles.presses import FORGOTTEN_S, Presses
from firmware_profiles.screen_keys import ScreenKeys
from firmware_profiles.screen_pages import FETCHES, LIVES_S, ScreenPages
from firmware_profiles.screen_text import answer_words, fitted, width
from tests.phone_keys_kit import Answered, get, listening, phone_settings, reach, talk, until

LOGIN = ("callshield", "s3cret pass")


class Node:
    """Takes presses and says at once what came of them, as the notifier would."""

    def __init__(self, settings: Settings, **options: object) -> None:
        self.pressed: list[PhoneKey] = []
        self.silent = False
        self.there = True
        self.tokens: PhoneTokens = load_tokens(settings)
        self.listener = Listener(settings, self.tokens, self.take, **options)  # type: ignore[arg-type]

    def take(self, key: PhoneKey) -> bool:
        if not self.there:
            return False
        self.pressed.append(key)
        if not self.silent:
            asyncio.get_running_loop().call_soon(
                self.listener.answered, PhoneKeyDone(key_id=key.key_id, outcome="done")
            )
        return True

    @property
    def end(self) -> str:
        return self.tokens.path("1001", "end")


async def test_only_the_phones_networks_are_answered(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path, networks='"127.0.0.2/31"'))
    async with listening(node.listener) as port:
        stranger = await get(port, node.end, "127.0.0.1")
        assert (stranger.status, stranger.raw, node.pressed) == (0, b"", [])
        assert (await get(port, node.end, "127.0.0.3")).status == 200
        assert len(node.pressed) == 1


async def test_without_networks_nothing_is_opened(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path, networks=""))
    with pytest.raises(ConfigurationError, match=r"sip\.phone\.networks"):
        node.listener.start()


async def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    settings = phone_settings(tmp_path)
    async with listening(Node(settings).listener):
        with pytest.raises(CallshieldError, match=r"phones\.port"):
            start_listener(settings, lambda key: True)


async def test_a_first_press_gets_through_slow_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow loris: every place is held by connections that say nothing, from the phone's own
    address; the oldest of them go."""
    monkeypatch.setattr(phone_server, "READ_S", 30.0)
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        held = await reach(port, phone_server.MOST_PER_ADDRESS + 20)
        for one in held:
            with contextlib.suppress(OSError):
                one.send(b"GET /p/")
        assert (await get(port, node.end)).status == 200
        assert len(node.pressed) == 1
        for one in held:
            one.close()


async def test_places_are_few_and_of_all_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_server, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(phone_server, "READ_S", 30.0)
    node = Node(phone_settings(tmp_path, networks='"127.0.0.0/8"'))
    async with listening(node.listener) as port:
        held = await reach(port, 12)
        for source in ("127.0.0.2", "127.0.0.3"):
            assert (await get(port, node.tokens.path("1001", "event"), source)).status == 200
        loop = asyncio.get_running_loop()
        closed = 0
        for one in held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    closed += await loop.sock_recv(one, 1) == b""
            one.close()
        assert closed >= 8


async def test_who_sends_byte_by_byte_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_server, "READ_S", 0.3)
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        received = asyncio.create_task(reader.read())
        sent = 0
        for byte in b"GET /p/" * 10:
            if received.done():
                break
            sent += 1
            with contextlib.suppress(ConnectionError):
                writer.write(bytes([byte]))
                await writer.drain()
            await asyncio.sleep(0.05)
        answer = Answered(await received)
        assert answer.status == 408
        assert sent < 60, "each byte gave it more time"
        writer.close()


async def test_who_is_refused_while_sending_reads_why(tmp_path: Path) -> None:
    """Bytes that nobody reads any more reset no connection before the answer was read."""
    node = Node(phone_settings(tmp_path))

    def send_much(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 30) as phone:
            phone.sendall(b"GET /p/x HTTP/1.1\r\nX: " + b"x" * 200_000)
            answer = b""
            while more := phone.recv(4096):
                answer += more
            return answer

    async with listening(node.listener) as port:
        for _ in range(5):
            assert Answered(await asyncio.to_thread(send_much, port)).status == 431


async def test_no_bytes_stop_the_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with bytes changed, cut and doubled, over a real socket; the seed is fixed."""
    monkeypatch.setattr(phone_server, "READ_S", 0.05)
    node = Node(phone_settings(tmp_path))
    chosen = random.Random(8)
    whole = f"GET {node.tokens.path('1002', 'event')} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with listening(node.listener) as port:
        seen = set()
        for _ in range(150):
            raw = bytearray(whole)
            for _ in range(chosen.randrange(1, 5)):
                place = chosen.randrange(len(raw))
                length = chosen.randrange(9)
                new = [chosen.randbytes(length), bytes(chosen.choices(b"ab/?&%:. ", k=length))]
                raw[place : place + chosen.randrange(4)] = chosen.choice(new)
            seen.add((await talk(port, bytes(raw))).status)
        assert seen <= {0, 200, 400, 404, 405, 408, 414, 431, 501, 505}
        assert {400, 404} <= seen
        monkeypatch.undo()
        assert (await get(port, node.end)).status == 200
    assert len(node.pressed) == 1


async def test_a_flood_of_forged_presses_swallows_no_first_press(tmp_path: Path) -> None:
    """From another phone: thousands of wrong tokens, and of another agent's good events."""
    node = Node(phone_settings(tmp_path, networks='"127.0.0.0/8"'))
    async with listening(node.listener) as port:
        stop = asyncio.Event()
        seen: list[int] = []

        async def flood(path: str) -> None:
            while not stop.is_set():
                seen.append((await get(port, path, "127.0.0.9")).status)

        event = node.tokens.path("1002", "event")
        floods = [asyncio.create_task(flood(f"/p/{'a' * 32}/end")) for _ in range(8)]
        floods += [asyncio.create_task(flood(event)) for _ in range(8)]
        await until(lambda: len(seen) >= 600)
        took = []
        for number in range(3):
            began = time.monotonic()
            action = ("end", "help", "end")[number]
            path = node.tokens.path(("1001", "1001", "1002")[number], action)  # type: ignore[arg-type]
            assert (await get(port, path)).status == 200
            took.append(time.monotonic() - began)
        stop.set()
        await asyncio.gather(*floods)
    assert [key.action for key in node.pressed] == ["end", "help", "end"]
    assert max(took) < 2
    # The control: the flood was cut, not served to its end.
    assert {404, 200, 0} <= set(seen)


async def test_an_agents_events_and_help_never_swallow_the_first_end(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        for _ in range(30):
            await get(port, node.tokens.path("1001", "event"))
            await get(port, node.tokens.path("1001", "help"))
        assert (await get(port, node.end)).text == "안내 후 종료합니다."
    assert [key.action for key in node.pressed].count("end") == 1


async def test_only_a_get_presses(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        for method in ("HEAD", "POST"):
            head = f"{method} {node.end} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
            assert (await talk(port, head.encode())).status == 405
        assert node.pressed == []
        assert (await get(port, node.end)).status == 200


async def test_events_say_only_that_the_phone_is_there(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path))
    path = node.tokens.path("1001", "event")
    async with listening(node.listener) as port:
        for query in ("?event=established&mac=805ec0123456", "?event=terminated&remote=0101234"):
            answer = await get(port, path + query)
            assert (answer.status, answer.body) == (200, b"")
        body = b"<PolycomIPPhone>" + b"x" * 5000 + b"</PolycomIPPhone>"
        post = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert (await talk(port, post + body)).status == 200
        assert list(node.listener.alive) == ["1001"]
    assert node.pressed == []
    kept = repr(vars(node.listener))
    # Whole: of five hexadecimal digits any id may have some by chance.
    assert not re.search("established|terminated|805ec0123456|0101234|Polycom", kept)


async def test_a_press_that_nobody_answers_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "UNREACHED_S", 0.2)
    node = Node(phone_settings(tmp_path))
    node.silent = True
    async with listening(node.listener) as port:
        answer = await get(port, node.end)
        assert answer.status == 503
        assert "*9#" in answer.text
        await asyncio.sleep(1.0)
        node.silent = False
        assert (await get(port, node.end)).status == 200
    assert len({key.key_id for key in node.pressed}) == 2


async def test_a_press_counts_though_the_phone_hangs_up(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {node.end} HTTP/1.1\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
        await until(lambda: node.pressed)


async def test_from_its_own_address_only_where_the_site_says_so(tmp_path: Path) -> None:
    more = 'keys_from = "own_address"'
    settings = phone_settings(tmp_path, more, networks='"127.0.0.0/8"')
    agents = dict(settings.agents)
    agents["1001"] = agents["1001"].model_copy(update={"phone_address": "127.0.0.7"})
    node = Node(settings.model_copy(update={"agents": agents}))
    async with listening(node.listener) as port:
        assert (await get(port, node.end, "127.0.0.8")).status == 403
        assert node.pressed == []
        assert (await get(port, node.end, "127.0.0.7")).status == 200
    assert own_address(settings.agents["1001"]) == "192.0.2.20"


# ------------------------------------------------------------------------------------------ Cisco


@pytest.mark.parametrize(
    ("query", "good"),
    [
        ("UserID=callshield&Password=s3cret%20pass&devicename=SEP0004F2ABCDEF", True),
        ("userid=callshield&password=s3cret+pass", True),
        ("UserID=callshield&Password=wrong", False),
        ("UserID=other&Password=s3cret%20pass", False),
        ("UserID=callshield", False),
        ("Password=s3cret%20pass", False),
        ("UserID=callshield&Password=s3cret%20pass%00", False),
        ("UserID=callshield&Password=x&Password=s3cret%20pass", False),
        ("", False),
    ],
)
async def test_cisco_is_told_who_may_push(tmp_path: Path, query: str, good: bool) -> None:
    node = Node(phone_settings(tmp_path, networks='"127.0.0.2"'), cisco_login=LOGIN)
    async with listening(node.listener) as port:
        answer = await get(port, f"{CISCO_PATH}?{query}", "127.0.0.2")
        assert answer.body == (b"AUTHORIZED" if good else b"UN-AUTHORIZED")
        # Some ask with a form.
        form = (
            f"POST {CISCO_PATH} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(query)}\r\n\r\n"
        )
        assert (await talk(port, (form + query).encode(), "127.0.0.2")).body == answer.body
        # Only phones are told.
        assert (await get(port, f"{CISCO_PATH}?{query}")).status == 0


async def test_without_a_login_nobody_may_push(tmp_path: Path) -> None:
    for login in (("", ""), ("callshield", ""), ("", "x")):
        node = Node(phone_settings(tmp_path), cisco_login=login)
        async with listening(node.listener) as port:
            path = f"{CISCO_PATH}?UserID={login[0]}&Password={login[1]}"
            assert (await get(port, path)).body == b"UN-AUTHORIZED"


async def test_a_screen_is_fetched_by_its_id_for_a_short_time(tmp_path: Path) -> None:
    now = [1000.0]
    node = Node(phone_settings(tmp_path), clock=lambda: now[0])
    document = "<CiscoIPPhoneText><Text>위험</Text></CiscoIPPhoneText>".encode()
    async with listening(node.listener) as port:
        url = node.listener.put_screen(document, "text/xml; charset=utf-8")
        assert url.startswith(f"http://127.0.0.1:{port}/s/")
        path = url.partition(str(port))[2]
        answer = await get(port, path)
        assert (answer.status, answer.body) == (200, document)
        assert answer.headers["content-type"] == "text/xml; charset=utf-8"
        assert (await get(port, path[:-1] + ("0" if path[-1] != "0" else "1"))).status == 404
        now[0] += LIVES_S
        assert (await get(port, path)).status == 404
        gone = node.listener.put_screen(document, "text/xml")
        node.listener.remove_screen(gone)
        assert (await get(port, gone.partition(str(port))[2])).status == 404


def test_screens_are_bounded_in_number_time_and_fetches() -> None:
    pages = ScreenPages()
    paths = [pages.put(b"x", "text/xml", 0.0) for _ in range(5000)]
    assert len(pages) == 2000
    assert len(set(paths)) == 5000
    assert all(re.fullmatch("/s/[0-9a-f]{32}", path) for path in paths)
    last = paths[-1].removeprefix("/s/")
    assert [pages.take(last, 1.0) for _ in range(FETCHES + 1)] == [
        *[(b"x", "text/xml")] * FETCHES,
        None,
    ]
    pages.put(b"y", "text/xml", LIVES_S)
    assert len(pages) == 1


# -------------------------------------------------------------------------- soft keys of a screen


async def test_a_soft_key_of_a_screen_presses_while_the_screen_lives(tmp_path: Path) -> None:
    now = [1000.0]
    node = Node(phone_settings(tmp_path), clock=lambda: now[0])
    async with listening(node.listener) as port:
        end, help_ = (url.partition(str(port))[2] for url in node.listener.screen_keys("1001"))
        other = node.listener.screen_keys("1002")[0].partition(str(port))[2]
        assert (await get(port, help_)).text == "관리자 호출 완료"
        assert (await get(port, end)).text == "안내 후 종료합니다."
        assert (await get(port, other)).status == 200
        assert [(key.agent_id, key.action) for key in node.pressed] == [
            ("1001", "help"),
            ("1001", "end"),
            ("1002", "end"),
        ]
        for path in (end[:-1], end + "0", "/k/", "/k/" + "0" * 32):
            assert (await get(port, path)).status == 404
        head = f"HEAD {end} HTTP/1.1\r\n\r\n"
        assert (await talk(port, head.encode())).status == 405
        # Who reads it later reads nothing of use.
        now[0] += screen_keys.LIVES_S
        assert (await get(port, end)).status == 404
    assert len(node.pressed) == 3


async def test_the_same_press_by_either_address_is_one(tmp_path: Path) -> None:
    node = Node(phone_settings(tmp_path))
    async with listening(node.listener) as port:
        end = node.listener.screen_keys("1001")[0].partition(str(port))[2]
        assert (await get(port, end)).status == (await get(port, node.end)).status == 200
    assert len(node.pressed) == 1


def test_keys_of_screens_live_longer_than_screens_and_are_bounded() -> None:
    assert screen_keys.LIVES_S > 2 * HOLD_S
    keys = ScreenKeys()
    first = keys.make("1001", 0.0)
    made = [keys.make("1001", 1.0) for _ in range(500)]
    assert len(keys) == 8
    assert keys.find(first[0].removeprefix("/k/"), 2.0) is None
    assert keys.find(made[-1][1].removeprefix("/k/"), 2.0) == ("1001", "help")
    assert all(re.fullmatch("/k/[0-9a-f]{32}", path) for pair in made for path in pair)


# -------------------------------------------------------------------------------------- the cores


def test_presses_close_together_are_one_and_a_held_key_does_not_go_on_for_ever() -> None:
    presses = Presses()
    first, new = presses.press("1001", "end", 10.0)
    assert new
    presses.finished("1001", "end", first)
    assert presses.press("1001", "end", 10.9) == (first, False)
    assert presses.press("1001", "help", 10.9)[1]
    assert presses.press("1002", "end", 10.9)[1]
    # Counted from the first press: a finger that drums presses once a second.
    second, new = presses.press("1001", "end", 11.0)
    assert new
    # While nothing has come of it, it is the same.
    assert presses.press("1001", "end", 13.0) == (second, False)
    presses.finished("1001", "end", "of another press")
    assert presses.press("1001", "end", 13.0) == (second, False)
    assert presses.press("1001", "end", 11.0 + FORGOTTEN_S)[1]


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
@pytest.mark.parametrize("action", ["end", "help"])
def test_every_outcome_has_a_sentence(language: str, action: str) -> None:
    outcomes = ("done", "already", "no_call", "not_now", "unreached")
    texts = [key_text(action, outcome, language, "*9#") for outcome in outcomes]  # type: ignore[arg-type]
    assert len(set(texts)) == len(outcomes)
    assert "*9#" in texts[-1]
    assert all("{" not in text for text in texts)
    # On the smallest display, under a title, with nothing lost.
    assert all(width(text) <= 20 for text in texts[:-1])
    _, *lines = fitted(answer_words(texts[-1]), 3, 20)
    assert "".join(lines).replace(" ", "") == texts[-1].replace(" ", "")
    assert any("*9#" in line for line in lines)
    assert key_text(action, "done", "xx", "") == key_text(action, "done", "en", "")


# -------------------------------------------------------------------------------- nothing is told


async def test_no_token_and_no_password_is_in_a_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    node = Node(phone_settings(tmp_path, 'keys_from = "own_address"'), cisco_login=LOGIN)
    broken = Node(phone_settings(tmp_path / "b"))

    def explode(key: PhoneKey) -> bool:
        raise RuntimeError(broken.end)

    broken.listener._send = explode
    async with listening(node.listener) as port, listening(broken.listener) as other:
        tokens = node.tokens
        for action in PHONE_ACTIONS:
            await get(port, tokens.path("1001", action))
        await get(port, f"/p/{tokens.token('1001', 'help')}/end")
        await get(port, f"{CISCO_PATH}?UserID=callshield&Password=s3cret%20pass")
        await get(port, f"{CISCO_PATH}?UserID=callshield&Password=s3cret%20wrong%ff")
        await talk(port, b"BREW " + tokens.path("1001", "end").encode() + b" X\r\n\r\n")
        assert (await get(other, broken.end)).status == 0
    logged = capfd.readouterr()
    told = logged.err + logged.out + caplog.text
    for event in ("request_refused", "key_from_elsewhere", "request_failed"):
        assert f"phone_{event}" in told
    for made in (node.tokens, broken.tokens):
        for action in PHONE_ACTIONS:
            assert made.token("1001", action) not in told
    assert "s3cret" not in told


# -------------------------------------------------------------------------------------------- TLS


def certificate(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", pem, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    return pem, key


def tls_settings(folder: Path, pem: Path, key: Path) -> Settings:
    settings = phone_settings(folder)
    phones = settings.phones.model_copy(
        update={
            "certificate": pem,
            "private_key": key,
            "url": settings.phones.url.replace("http:", "https:"),
        }
    )
    return settings.model_copy(update={"phones": phones})


async def test_with_a_certificate_phones_come_by_https(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path / "tls")
    node = Node(tls_settings(tmp_path, pem, key))
    async with listening(node.listener) as port:
        context = ssl.create_default_context(cafile=str(pem))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"GET {node.end} HTTP/1.1\r\n\r\n".encode())
        assert Answered(await reader.read()).status == 200
        writer.close()
        # Plain HTTP is not answered, and holds nobody up.
        assert (await get(port, node.end)).status == 0
        assert len(node.pressed) == 1


async def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path / "tls")
    key.chmod(0o644)
    node = Node(tls_settings(tmp_path, pem, key))
    with pytest.raises(CallshieldError, match="chmod 600"):
        node.listener.start()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('certificate = "/x.pem"', "both or neither"),
        ('certificate = "/x.pem"\nprivate_key = "/x.key"', "https"),
        ('keys_from = "anywhere"', "networks"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, more: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        phone_settings(tmp_path, more)
