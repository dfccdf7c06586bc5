"""A bad file is copied over an announcement while a node runs: what callers hear, who is told."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from callshield.heard import find, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

CALLER, PHONE = "127.0.8.114", "127.0.8.115"
SIDES = ("127.0.8.112", "127.0.8.113")


async def told(node: Node, caller: Baresip, console: Watch, number: int) -> str:
    """One call up to the end of the notice; the hash of what the record says was played."""
    await caller.command("dial", node.uri("1001"))
    finished = await console.wait("notice.finished", count=number)
    assert finished["source"] == "played", finished
    await caller.command("hangup")
    await console.wait("call.ended", count=number)
    await caller.wait("CALL_CLOSED", count=number)
    (stamp,) = finished["prompts"]
    return str(stamp["sha256"])


def heard(caller: Baresip, path: Path) -> bool:
    found = find(read_wav(path), caller.heard())
    return found is not None and found.whole


async def test_callers_hear_what_was_checked_until_something_good_is_there(tmp_path: Path) -> None:
    prompts = Prompts(tmp_path / "own")
    notice = tmp_path / "own" / "ko" / "recording.wav"
    good, better = tmp_path / "good.wav", SHIPPED / "ko" / "closing.wav"
    shutil.copy(notice, good)
    sha256 = hashlib.sha256(good.read_bytes()).hexdigest()
    quiet = write_tone(tmp_path / "quiet.wav", 700.0, 60, 0.001)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", quiet) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", quiet) as caller,
        running_node(
            tmp_path / "node", {"1001": agent.uri}, peer=CALLER, sides=SIDES, extra=prompts.toml
        ) as node,
        node.watch("1001") as console,
        node.watch("supervisor") as supervisor,
    ):
        write_tone(notice, 440.0, 1.0, 0.0)  # somebody copies an empty recording over it
        assert await told(node, caller, console, 1) == sha256
        assert heard(caller, good)
        assert supervisor.seen("node.degraded") == []

        node.kill("bridge")  # it looks at the folder again, and finds nothing good
        alarm = await supervisor.wait(
            "node.degraded", lambda event: event["component"] == "prompts" and event["degraded"]
        )
        assert "silent" in alarm["reason"]
        assert "as the node began" in alarm["reason"]
        await node.until_ready()
        assert await told(node, caller, console, 2) == sha256
        assert heard(caller, good)

        shutil.copy(better, notice)
        node.kill("bridge")
        await supervisor.wait(
            "node.degraded", lambda event: event["component"] == "prompts" and not event["degraded"]
        )
        await node.until_ready()
        fresh = await told(node, caller, console, 3)
        assert fresh == hashlib.sha256(better.read_bytes()).hexdigest()
        assert heard(caller, better)
        assert not heard(caller, good)
    assert not node.settings.kept_prompts_path.exists(), "the next run begins with its own"
