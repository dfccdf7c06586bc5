"""The running edge, asked over Kamailio's JSON-RPC socket (a Unix datagram socket)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any

from callshield.edge_files import EdgeError, rpc_socket
from callshield.settings_edge import EdgeSettings

_TIMEOUT_S = 3.0
_MAX_ANSWER = 1 << 20
#: What Kamailio says to a reload that follows another within its ``reload_delta`` (5 s).
_TOO_SOON = "ongoing reload"
_RELOAD_WAIT_S, _RELOAD_AGAIN_S = 10.0, 0.5


@dataclass(frozen=True, slots=True)
class NodeState:
    """What the edge thinks of a node."""

    name: str
    uri: str
    takes_calls: bool
    """It answered its last OPTIONS with a 2xx; a draining node answers 503."""
    latency_ms: float
    """Of its OPTIONS, an average; 0 while none was answered."""


def ask(edge: EdgeSettings, method: str, *parameters: str) -> Any:
    """One remote procedure call.

    Raises:
        EdgeError: Kamailio does not run, does not answer, or refuses.
    """
    place = rpc_socket(edge)
    mine = place.with_name(f".callshield-{os.getpid()}-{secrets.token_hex(4)}")
    request = {"jsonrpc": "2.0", "method": method, "params": list(parameters), "id": 1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.settimeout(_TIMEOUT_S)
        try:
            link.bind(str(mine))
            mine.chmod(0o622)  # Kamailio, another user, answers here
            link.connect(str(place))
            link.send(json.dumps(request).encode())
            answer = json.loads(link.recv(_MAX_ANSWER))
        except TimeoutError:
            raise EdgeError(f"Kamailio did not answer at {place} in {_TIMEOUT_S:g} s") from None
        except (OSError, ValueError) as error:
            raise EdgeError(
                f"Kamailio cannot be asked at {place} ({error}): does it run, with the files of "
                "`callshield edge render`, and may this user speak to it?"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                mine.unlink()
    if "error" in answer:
        raise EdgeError(f"Kamailio refused {method}: {answer['error'].get('message', '?')}")
    return answer.get("result")


def node_states(edge: EdgeSettings) -> list[NodeState]:
    """Each node, as the edge sees it now.

    Raises:
        EdgeError: Kamailio does not answer.
    """
    found = []
    sets = ask(edge, "dispatcher.list").get("RECORDS", [])
    for record in sets:
        for target in record["SET"]["TARGETS"]:
            destination = target["DEST"]
            name = next(
                (
                    part.partition("=")[2]
                    for part in destination.get("ATTRS", {}).get("BODY", "").split(";")
                    if part.startswith("duid=")
                ),
                "",
            )
            latency = destination.get("LATENCY", {})
            found.append(
                NodeState(
                    name=name,
                    uri=str(destination["URI"]),
                    # A: active; I: inactive, D: disabled, T: trying; then P where it is probed.
                    takes_calls=str(destination["FLAGS"]).startswith("A"),
                    latency_ms=float(latency.get("AVG", 0.0)),
                )
            )
    return sorted(found, key=lambda node: node.name)


def registered(edge: EdgeSettings) -> int:
    """Phones that are registered now.

    Raises:
        EdgeError: Kamailio does not answer.
    """
    counts = ask(edge, "stats.fetch", "usrloc:location-contacts")
    return int(next(iter(counts.values()), 0))


def reload(edge: EdgeSettings) -> list[str]:
    """Take new nodes, addresses and certificates into use; calls go on. Soon after another reload
    this waits up to five seconds.

    Raises:
        EdgeError: Kamailio does not answer, or refuses a file.
    """
    methods = ["permissions.addressReload", "dispatcher.reload"]
    if edge.tls.enabled:
        methods.append("tls.reload")
    for method in methods:
        _reload(edge, method)
    return methods


def _reload(edge: EdgeSettings, method: str) -> None:
    """Kamailio keeps the tables that it replaced for five seconds and refuses to read new ones
    meanwhile (``reload_delta``): an operator who reloads twice waits."""
    until = time.monotonic() + _RELOAD_WAIT_S
    while True:
        try:
            ask(edge, method)
            return
        except EdgeError as error:
            if _TOO_SOON not in str(error).lower() or time.monotonic() >= until:
                raise
            time.sleep(_RELOAD_AGAIN_S)
