"""No silent listening, by structure: every door is named and classed, and a new one is not let in
before somebody has said what comes through it (``tests/listening_doors.py``, docs/listening.md).
"""

from __future__ import annotations

import ast
import base64
import gzip
import json
import re
import types
import zlib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pytest
import typer
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount

from callshield import g711, messages_cluster
from callshield.cli import app as command_line
from callshield.message_base import Message
from callshield.messages import Action, CrisisHint, Event, NodeMessage, Reason, RiskChanged
from callshield.messages_media import MediaMessage
from callshield.serve import parts_of
from callshield.settings import load_settings
from detectors.words_link import LinkMessage
from notifier.app import build_app
from notifier.cluster.requests import ROUTES
from notifier.cluster.views import without_words
from notifier.node import Node
from notifier.outside import told
from notifier.permissions import ADMIN, AGENT, AUDITOR, REPRESENTATIVE, ROLES, SUPERVISOR, TABLE
from notifier.views import SUPERVISOR_TYPES, for_supervisor
from tests.listening_doors import (
    BYTES,
    COMMANDS,
    HTTP,
    IDS,
    MAKES_SOCKETS,
    NODE_EVENTS,
    NODE_REQUESTS,
    NODE_TEXTS,
    NODES,
    PROCESSES,
    SOCKETS,
    SPOKEN,
    TEXTS,
    WEBSOCKET,
    Carries,
)
from tests.listening_leaks import LeakFinder, news_per_second, steady_news_per_second
from tests.notifier_kit import desk_in_process, write_config
from tests.speech_kit import sentences

ROOT = Path(__file__).parent.parent
ROOMS = ("callshield", "sipbridge", "detectors", "notifier", "firmware_profiles")
CORE = ROOT / "sipbridge" / "relay_core"

# --------------------------------------------------------------------------------------- HTTP


def doors_of(router: Any) -> Iterator[str]:
    """``METHOD path`` of everything that an application answers, mounted folders too."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from doors_of(included)
        elif isinstance(route, Mount):
            yield f"MOUNT {route.path}"
        else:
            methods = (getattr(route, "methods", None) or {"WS"}) - {"HEAD"}
            yield from (f"{method} {route.path}" for method in methods)


@pytest.fixture
async def app(tmp_path: Path) -> FastAPI:
    node = Node(load_settings(write_config(tmp_path, 8080)))
    await node.store.close()
    return build_app(node)


async def test_every_route_is_classed_and_a_new_one_is_not(app: FastAPI) -> None:
    assert set(doors_of(app)) ^ HTTP.keys() == set()
    # Controls: a route, a WebSocket and a folder that nobody classed are seen.
    new = APIRouter(prefix="/api/v1")
    new.add_api_route("/calls/{call_id}/listen", lambda: None, methods=["GET"])
    new.add_api_websocket_route("/sound", lambda: None)
    app.include_router(new)
    app.mount("/recordings", FastAPI())
    assert set(doors_of(app)) - HTTP.keys() == {
        "GET /api/v1/calls/{call_id}/listen",
        "WS /api/v1/sound",
        "MOUNT /recordings",
    }


#: Which roles may stand before a door of which kind at all.
MAY: Mapping[Carries, frozenset[str]] = {
    Carries.QUOTES: frozenset({AGENT, SUPERVISOR, ADMIN}),
    Carries.PAST: frozenset({ADMIN}),
    Carries.ACTS: frozenset({AGENT, SUPERVISOR, ADMIN}),
    Carries.JOINS: frozenset({AGENT, SUPERVISOR, ADMIN}),
    Carries.OWN: frozenset({AGENT}),
    Carries.STATE: frozenset(ROLES),
    Carries.FIGURES: frozenset(ROLES),
    Carries.NOTHING: frozenset(ROLES),
}


def beyond(table: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """Roles at doors that are not for them; doors over HTTP may carry no sound for anybody."""
    return [
        (role, door)
        for door, roles in table.items()
        for role in sorted(roles)
        if role not in MAY.get(HTTP[door], frozenset())
    ]


def test_each_role_stands_only_before_doors_of_its_kind() -> None:
    assert beyond(TABLE) == []
    assert not set(HTTP.values()) & {Carries.CALLER_AUDIO, Carries.CALLER_WORDS, Carries.RECORDING}
    for role in (AUDITOR, REPRESENTATIVE):
        kinds = {HTTP[door] for door, roles in TABLE.items() if role in roles}
        assert kinds <= {Carries.NOTHING, Carries.STATE, Carries.FIGURES}, role
    # Control: an auditor let in to the calls.
    wrong = {**TABLE, "GET /api/v1/calls": TABLE["GET /api/v1/calls"] | {AUDITOR}}
    assert beyond(wrong) == [(AUDITOR, "GET /api/v1/calls")]


# ------------------------------------------------------------------------------------ messages


def members(union: Any) -> dict[str, type[msgspec.Struct]]:
    """Tag → type of a tagged union."""
    return {one.__struct_config__.tag: one for one in get_args(union)}


def test_every_message_of_a_console_is_classed_and_a_new_one_is_not() -> None:
    beside = {"session.ready", "heartbeat", "voice.talk"}
    assert members(Event).keys() ^ (WEBSOCKET.keys() - beside) == set()

    class NewEvent(Message, tag="call.transcript", frozen=True, kw_only=True):
        text: str

    assert members(Event | NewEvent).keys() - WEBSOCKET.keys() == {"call.transcript"}


def test_every_message_between_processes_is_classed() -> None:
    between = {**members(NodeMessage), **members(MediaMessage), **members(LinkMessage)}
    assert (between.keys() - members(Event).keys()) ^ PROCESSES.keys() == set()


def leaves(kind: Any, path: str) -> Iterator[tuple[str, type]]:
    """Every field that can hold text or bytes: ``type.path`` and which of the two."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType, list, tuple, set, frozenset):
        for part in get_args(kind):
            yield from leaves(part, path)
    elif origin is dict:
        key, value = get_args(kind)
        yield from leaves(key, f"{path}{{}}")
        yield from leaves(value, f"{path}{{}}")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for name, inner in get_type_hints(kind).items():
            if get_origin(inner) is not ClassVar and not name.startswith("__"):
                yield from leaves(inner, f"{path}.{name}")
    elif isinstance(kind, type) and issubclass(kind, bytes | bytearray | memoryview | msgspec.Raw):
        yield path, bytes
    elif kind is str or kind is Any:
        yield path, str
    else:
        safe = origin is Literal or kind in (int, float, bool, type(None), ...)
        assert safe or issubclass(kind, Enum), f"{path}: what can {kind} hold?"


def unclassed(found: Mapping[str, type[msgspec.Struct]]) -> set[str]:
    """Fields of text that stand in no list, and fields of bytes that are no keys of SRTP and no
    utterance for a transcriber."""
    return {
        path
        for tag, kind in found.items()
        for path, holds in leaves(kind, tag)
        if (path not in BYTES)
        and (holds is bytes or (path not in SPOKEN | TEXTS and path.rpartition(".")[2] not in IDS))
    }


EVERY_MESSAGE = {**members(NodeMessage), **members(MediaMessage), **members(LinkMessage)}


def test_every_field_that_can_hold_words_or_sound_is_classed() -> None:
    assert unclassed(EVERY_MESSAGE) == set()
    known = {path for tag, kind in EVERY_MESSAGE.items() for path, _ in leaves(kind, tag)}
    assert (SPOKEN | TEXTS | BYTES) - known == set(), "no line for what is gone"
    # What a person said stands in no message but these, and none of them is told a phone's screen.
    assert {path.split(".words")[0].removesuffix(".reasons") for path in SPOKEN} == {
        "risk.changed", "crisis.hint", "transcribed"
    }  # fmt: skip
    for path in SPOKEN:
        tag = next(tag for tag in EVERY_MESSAGE if path.startswith(f"{tag}."))
        carries = WEBSOCKET.get(tag) or PROCESSES[tag]
        assert carries in (Carries.QUOTES, Carries.CALLER_WORDS)


def test_what_nodes_tell_each_other_is_classed_and_a_stream_has_no_words() -> None:
    decoders = {name for name in vars(messages_cluster) if name.startswith("decode_")}
    assert {name.removeprefix("decode_") for name in decoders} == {one.lower() for one in NODES}
    asked = set(get_args(messages_cluster.Operation))
    assert asked ^ NODE_REQUESTS.keys() == set()
    assert asked ^ ROUTES.keys() == {"state"}
    for op, (method, path) in ROUTES.items():
        # Whoever asks through another node gets no more than at the door itself.
        assert NODE_REQUESTS[op] == HTTP[f"{method} {path}"], op
    for name in ("Beat", "Batch", "Snapshot"):
        for path, holds in leaves(getattr(messages_cluster, name), name):
            known = path in NODE_TEXTS | NODE_EVENTS or path.rpartition(".")[2] in IDS
            assert known, path
            assert (holds is bytes) == (path in NODE_EVENTS), path
    for event in (
        RiskChanged(
            ts=1.0,
            call_id="c",
            level=2,
            previous=0,
            categories=[],
            score=0.5,
            reasons=[msgspec.convert(REASON, Reason)],
        ),
        CrisisHint(ts=1.0, call_id="c", words=["비밀"], detail="비밀"),
    ):
        assert "비밀" in msgspec.json.encode(event).decode(), "the control"
        assert "비밀" not in msgspec.json.encode(without_words(event)).decode()
    spoken = {path.split(".words")[0].removesuffix(".reasons") for path in SPOKEN}
    travel = {tag for tag in members(Event) if tag in SUPERVISOR_TYPES}
    assert spoken & travel == {"risk.changed", "crisis.hint"}, "these two are what was tried"


class Frame(msgspec.Struct):
    payload: bytes


class Level(Message, tag="risk.level", frozen=True, kw_only=True):
    call_id: str
    heard: list[str]
    frames: dict[str, Frame] | None = None


def test_control_a_field_for_sound_and_one_for_text_are_found_anywhere() -> None:
    assert unclassed({"risk.level": Level}) == {
        "risk.level.heard",
        "risk.level.frames{}",
        "risk.level.frames{}.payload",
    }


QUOTED = {"type": "risk.changed", "call_id": "c", "level": 2, "score": 0.5}
REASON = {"kind": "words", "score": 0.5, "detail": "d", "words": ["비밀"]}


def test_no_supervisor_and_nobody_outside_reads_words_before_the_agent_asked() -> None:
    for body in (
        {**QUOTED, "reasons": [REASON]},
        {"type": "crisis.hint", "call_id": "c", "words": ["비밀"], "detail": "d"},
    ):
        assert "비밀" not in json.dumps(for_supervisor(body), ensure_ascii=False)
        assert "비밀" not in json.dumps(told({"id": 1, "ts": 1.0, **body}), ensure_ascii=False)
        seen = json.dumps(for_supervisor(body, help_asked=True), ensure_ascii=False)
        assert "비밀" in seen, "the control: who asked for help shows why"


async def test_the_bridge_is_told_levels_without_words(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.bridge("detector") as detector,
        desk.console(desk.agent) as screen,
    ):
        call_id = bridge.start_call()
        await screen.until("call.started")
        reason = Reason(kind="words", score=0.9, detail="d", words=["비밀"])
        level = RiskChanged(
            ts=1.0, call_id=call_id, level=2, previous=0, categories=[], score=0.9, reasons=[reason]
        )
        detector.send(level)
        detector.send(CrisisHint(ts=2.0, call_id=call_id, words=["비밀"], detail="d"))
        shown = [await screen.until(kind) for kind in ("risk.changed", "crisis.hint")]
        assert json.dumps(shown, ensure_ascii=False).count("비밀") == 2, "the agent is, the control"
        while not bridge.crises:
            await bridge.asked.wait()
            bridge.asked.clear()
        assert [one.level for one in bridge.levels] == [2]
        assert "비밀".encode() not in msgspec.json.encode([*bridge.levels, *bridge.crises])


# -------------------------------------------------------------------------------- command line


def commands_of(command: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command, as it is typed."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(before)
    for name, one in (inner or {}).items():
        yield from commands_of(one, (*before, name))


def test_every_command_is_classed_and_a_new_one_is_not() -> None:
    group: Any = typer.main.get_command(command_line)
    assert set(commands_of(group)) ^ COMMANDS.keys() == set()
    for name, command in COMMANDS.items():
        assert (command.run is None) == bool(command.why_not), name
    assert not {c.carries for c in COMMANDS.values()} & {
        Carries.CALLER_AUDIO, Carries.CALLER_WORDS, Carries.JOINS
    }  # fmt: skip
    group.commands["listen"] = group.commands["serve"]
    assert set(commands_of(group)) - COMMANDS.keys() == {"listen"}, "the control"


# ------------------------------------------------------------------------- processes and sockets

#: Calls that open a socket, speak to one, or start a process: the last word of their name.
CALLS = frozenset(
    {
        *("socket", "socketpair", "fromfd", "start_server", "start_unix_server", "create_server"),
        *("create_unix_server", "create_datagram_endpoint", "open_connection"),
        *("open_unix_connection", "create_connection", "create_unix_connection"),
        *("create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "Popen"),
        *("check_output", "check_call", "get_context", "SharedMemory", "mkfifo", "memfd_create"),
        *("posix_spawn", "fork", "system", "popen", "urlopen"),
    }
)
#: Libraries that are for nothing else.
LIBRARIES = frozenset(
    {
        *("httpx", "uvicorn", "websockets", "smtplib", "aiosmtplib", "requests", "aiohttp"),
        *("ftplib", "multiprocessing", "subprocess", "socketserver", "zmq", "nats"),
        *("urllib.request", "http.server", "http.client", "starlette.websockets"),
    }
)


def makes_sockets(source: str) -> bool:
    """Whether a module calls one of these, or imports one of those."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func).rpartition(".")[2] in CALLS:
                return True
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            named = [module] if module else [alias.name for alias in node.names]
            for name in named:
                if name.split(".")[0] in LIBRARIES or name in LIBRARIES:
                    return True
    return False


def test_every_module_that_opens_a_socket_or_starts_a_process_is_named() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if makes_sockets(path.read_text(encoding="utf-8"))
    }
    assert found ^ MAKES_SOCKETS.keys() == set()
    assert makes_sockets("import asyncio\nasyncio.start_server(f, port=1)"), "the control"
    assert makes_sockets("from socket import socket\nsocket()")
    assert not makes_sockets('"""Opens no socket.socket()."""\nx = 1')


def test_every_process_of_a_node_has_its_sockets_classed(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, 8080))
    parts = {part.name.rpartition("-")[0] or part.name for part in parts_of(settings)}
    assert parts == {"notifier", "phones", "media", "detector", "transcriber", "bridge"}
    # A transcriber listens at nothing.
    assert {part for part, _, _ in SOCKETS} == parts - {"transcriber"}


# ---------------------------------------------------------------------------- the relay itself


def calls_in(sources: Mapping[str, str], name: str) -> dict[str, int]:
    """How often each file calls a C function; declarations and definitions are not calls."""
    found = {
        file: sum(
            len(re.findall(rf"(?<![\w>.]){name}\s*\(", line))
            for line in text.splitlines()
            if not re.match(rf"^(static )?(inline )?\w[\w ]*[ *]{name}\s*\(", line)
            and not line.lstrip().startswith(("*", "/*"))
        )
        for file, text in sources.items()
    }
    return {file: count for file, count in found.items() if count}


def test_the_relay_gives_sound_to_three_places_and_no_other() -> None:
    """Far ends' sockets, the tap's, and the recorder's queue; it opens no file."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in CORE.glob("*.c")}
    assert calls_in(sources, "sendto") == {"engine.c": 1}
    assert calls_in(sources, "send") == {"engine.c": 1}
    assert calls_in(sources, "record_add") == {"relay.c": 1, "conference.c": 1}
    for name in ("fopen", "open", "fwrite", "fputs", "printf", "fprintf", "mmap", "shm_open"):
        assert calls_in(sources, name) == {}, name
    # write() wakes Python and stops the thread: a number, twice.
    assert calls_in(sources, "write") == {"engine.c": 2}
    # Sound into the tap: once, behind the test for the caller's leg; the others tell its end.
    audio = re.findall(r"tap_add\(core, s, (\d)", "".join(sources.values()))
    assert sorted(audio) == ["0", "1", "1"]
    before = sources["relay.c"].split("tap_add(core, s, 0")[0].rstrip().splitlines()
    assert any("if (leg->name == CALLER) {" in line for line in before[-4:])
    leaking = {**sources, "new.c": '    send(fd, packet, size, 0);\n    fopen("/tmp/x", "w");'}
    assert calls_in(leaking, "send") == {"engine.c": 1, "new.c": 1}, "the control"
    assert calls_in(leaking, "fopen") == {"new.c": 1}


def keywords_of(source: str, name: str) -> list[tuple[str, str]]:
    """``(function, value)`` of every call that gives a keyword of this name."""
    return [
        (ast.unparse(node.func), ast.unparse(keyword.value))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == name
    ]


def test_three_people_hear_each_other_only_by_the_helpers_state_machine() -> None:
    """``FlowUpdate.conference`` comes from one place, which is true only after both were told
    (``sipbridge/help_request.py``, random orders in ``test_help_request.py``)."""
    opened: dict[str, list[str]] = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if "bench" in path.name:
                continue
            source = path.read_text(encoding="utf-8")
            for function, value in keywords_of(source, "conference"):
                if value != "False":
                    opened.setdefault(path.name, []).append(f"{function}: {value}")
    assert opened == {
        "call.py": ["self.gate.flow: self.help.conference"],
        # Of a bridge that died: a conference that was one goes on, and none begins.
        "kept_call.py": ["FlowUpdate: together and (not ending)"],
        "media_gate.py": ["FlowUpdate: conference and talks"],
    }
    wrong = 'FlowUpdate(call_id="c", conference=True)'
    assert keywords_of(wrong, "conference") == [("FlowUpdate", "True")], "the control"


def test_only_the_agent_asks_and_only_a_supervisor_joins() -> None:
    """Where ``HelpRequest.ask`` and ``join`` are called from, and for whom."""
    source = (ROOT / "sipbridge" / "call.py").read_text(encoding="utf-8")
    callers = [
        path.name
        for path in (ROOT / "sipbridge").rglob("*.py")
        if re.search(r"help\.(ask|join|hand_over)\(", path.read_text(encoding="utf-8"))
    ]
    assert callers == ["call.py"]
    assert "Action.JOIN" in source
    mentions = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"Action\.JOIN\b", path.read_text(encoding="utf-8"))
    }
    # Who names this action decides about joining: the bridge, and the routes in front of it, which
    # refuse before the agent asked (test_peers_listening does it).
    assert mentions == {
        "sipbridge/call.py", "notifier/routes.py", "notifier/routes_escalation.py"
    }  # fmt: skip
    assert Action.JOIN.value == "join"


# ------------------------------------------------------------------------------- the finder itself


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return sentences()["calm_01f"].samples


@pytest.fixture(scope="module")
def finder(speech: np.ndarray) -> LeakFinder:
    return LeakFinder({"caller": speech}, {"quote": "바람개비삼천"})


@pytest.mark.parametrize("law", [g711.PCMU, g711.PCMA])
def test_a_fiftieth_of_a_second_of_sound_is_found_however_it_is_wrapped(
    law: int, speech: np.ndarray, finder: LeakFinder
) -> None:
    loud = int(np.argmax(np.abs(speech.astype(int))))
    codes = g711.encode(speech[loud : loud + 160], law)
    samples = g711.decode(codes, law)
    packed = gzip.compress(codes)
    for wrapped in (
        codes,
        b"\x80\x00\x12\x34" * 3 + codes,
        samples.astype("<i2").tobytes(),
        samples.astype(">i2").tobytes(),
        (samples / 32768).astype("<f4").tobytes(),
        json.dumps({"a": base64.b64encode(codes).decode()}).encode(),
        base64.urlsafe_b64encode(samples.astype("<i2").tobytes()),
        codes.hex().encode(),
        json.dumps(list(codes)).encode(),
        json.dumps(samples.tolist()).encode(),
        packed,
        base64.b64encode(zlib.compress(codes)),
    ):
        assert finder.look(wrapped) == {"sound:caller"}, wrapped[:40]


@pytest.mark.parametrize(
    "wrapped",
    [
        "그 바람개비삼천 말이야".encode(),
        json.dumps({"words": ["바람개비삼천"]}).encode(),
        "바람개비삼천".encode("utf-16-le"),
        base64.b64encode("바람개비삼천".encode()),
        b"%EB%B0%94%EB%9E%8C%EA%B0%9C%EB%B9%84%EC%82%BC%EC%B2%9C",
    ],
)
def test_words_are_found_however_they_are_wrapped(wrapped: bytes, finder: LeakFinder) -> None:
    assert finder.look(wrapped) == {"word:quote"}


def test_what_is_no_leak_is_none(finder: LeakFinder) -> None:
    random = np.random.default_rng(3).integers(0, 256, 200_000).astype(np.uint8).tobytes()
    other = sentences()["calm_09m"].samples
    for innocent in (
        random,
        bytes(20_000),
        b"\xd5" * 5000,
        json.dumps(list(range(5000))).encode(),
        "바람개비 삼천 개".encode(),
        g711.encode(other[8000:8400], g711.PCMU),
    ):
        assert finder.look(innocent) == set()


def test_a_door_that_streams_anything_like_sound_is_too_fast(speech: np.ndarray) -> None:
    page = json.dumps([{"call_id": "0" * 32, "level": 0, "n": n} for n in range(20)]).encode()
    still = news_per_second([(0.0, page), (2.0, page.replace(b'"level": 0', b'"level": 2', 1))])
    assert still < 20
    # A second of the lowest-rate speech codecs, 600 bit/s, beside it in any answer.
    random = np.random.default_rng(5)
    streamed = [(2.0 * n, page + random.bytes(150)) for n in range(2)]
    assert news_per_second(streamed) > 60
    # News that is told once is much at once, and no sound; a stream is as fast each time.
    seldom = [(1.0 * n, page + random.bytes(300) * (n == 1)) for n in range(4)]
    assert news_per_second(seldom) > 200
    assert steady_news_per_second(seldom) < 20
    steadily = [(1.0 * n, page + random.bytes(75)) for n in range(5)]
    assert steady_news_per_second(steadily) > 60
