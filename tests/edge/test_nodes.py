"""Which node gets a call: ready ones in turn, no draining one, the next where one says nothing."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from callshield.free_ports import free_port
from tests.edge.bridge_node import BridgeNode
from tests.edge.kit import EDGE, NODES, PBX, PHONE_1, Edge, of_node, running_edge
from tests.edge.scripted import Registration, options
from tests.peers.sip_ua import Dialog, Message, Ua, bye_of, request_of, running_ua

pytestmark = [
    pytest.mark.edge,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
]

ATTESTED = ("X-Callshield-Notice: abuse_prevention, recording",)
#: One call after the other, as it is connected: the PBX's dialog, the phone's, the node's name.
Call = tuple[Dialog, Dialog, str]
#: Every caller has a number of their own: by it the phone's INVITE is told from any other.
_numbers = itertools.count(1)


@dataclass
class Scene:
    """Two nodes behind an edge, a scripted PBX and a scripted phone."""

    edge: Edge
    nodes: list[BridgeNode]
    pbx: Ua
    phone: Ua
    changed: bool = False
    """The edge is not as it was at first."""

    async def change(self, keys: str) -> None:
        """The edge, started anew with other keys."""
        self.changed = bool(keys)
        await self.edge.change(keys)

    def begin(self, target: str = "") -> Dialog:
        """A new dialog of the PBX with the edge."""
        edge = self.edge
        target = target or f"sip:1001@{edge.place}"
        user = f"0100{next(_numbers):07}"
        return self.pbx.begin(target, edge.address, edge.port, user=user)

    async def rings(self, caller: Dialog) -> Message:
        """The next INVITE that the phone gets for a caller."""
        whom = caller.local.partition("@")[0] + "@"
        return await self.phone.expect(
            lambda m: not m.status and m.method == "INVITE" and m["From"].startswith(whom), "INVITE"
        )

    async def acknowledged(self, agent: Dialog) -> None:
        """The phone gets the ACK of what it answered."""
        await self.phone.expect(request_of(agent.call_id, "ACK"), "ACK")

    async def call(self) -> Call:
        """A connected call: both ends have their ACK."""
        caller = self.begin()
        answering = asyncio.create_task(caller.invite(headers=ATTESTED))
        invite = await self.rings(caller)
        agent = self.phone.accept(invite)
        await self.acknowledged(agent)
        answer = await answering
        assert answer.status == 200, answer.text
        node = self.node_of(answer)
        await self.node(node).connected(invite["X-Callshield-Call-ID"])
        return caller, agent, node

    async def calls(self, count: int) -> list[Call]:
        return [await self.call() for _ in range(count)]

    def node_of(self, answer: Message) -> str:
        """The node whose address stands in a 200's Contact."""
        for number, node in enumerate(self.nodes, 1):
            if f"@{node.pbx_address}:" in answer["Contact"]:
                return f"node-{number}"
        raise AssertionError(answer.text)

    def node(self, name: str) -> BridgeNode:
        return self.nodes[int(name.removeprefix("node-")) - 1]

    async def end(self, *calls: Call) -> None:
        """BYE from the PBX; it reaches the phone."""
        for caller, agent, _ in calls:
            assert (await caller.ask("BYE")).status == 200
            bye = await self.phone.expect(bye_of(agent.call_id), "BYE")
            self.phone.reply(bye, 200)


def names(calls: list[Call]) -> set[str]:
    """Of their nodes."""
    return {node for _, _, node in calls}


async def goes_on(scene: Scene, call: Call) -> None:
    """A re-INVITE of either end is answered, as it must be."""
    held = await call[0].invite(body=scene.pbx.sdp("sendonly"))
    assert (held.status, "a=recvonly" in held.body) == (200, True), held.text
    refreshed = await call[1].invite()
    assert refreshed.status == 200, refreshed.text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One scene for all tests here: starting nodes is most of what a test takes."""
    folder, port = tmp_path_factory.mktemp("nodes"), free_port(EDGE)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nodes = [
            BridgeNode(
                folder / f"node-{number}",
                {"1001": f"sip:1001@{EDGE}:{port}"},
                peer=EDGE,
                sides=sides,
            )
            for number, sides in enumerate(NODES[:2], 1)
        ]
        for node in nodes:
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in nodes))
        behind = {f"node-{number}": of_node(node) for number, node in enumerate(nodes, 1)}
        options_ = {"port": port, "pbx": "attests_notice = true\n"}
        edge, passwords = await enter(running_edge(folder / "edge", behind, ["1001"], **options_))
        pbx = await enter(running_ua(PBX, "pbx"))
        phone = await enter(running_ua(PHONE_1, "1001"))
        registered = await Registration(phone, edge, "1001").register(passwords["1001"])
        assert registered.status == 200, registered.text
        yield Scene(edge, nodes, pbx, phone)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Scene) -> AsyncIterator[Scene]:
    """Both nodes run and take calls, and the edge is as it was at first."""
    if shared.changed:
        await shared.change("")
    await asyncio.gather(*(node.start() for node in shared.nodes if not node.running))
    await shared.edge.until(node_1=True, node_2=True)
    for ua in (shared.pbx, shared.phone):
        ua.forget()  # a test that failed may have left calls
    yield shared
    for node in shared.nodes:
        assert "Traceback" not in node.log_path.read_text()


async def test_calls_go_to_the_nodes_in_turn_and_stay_there(scene: Scene) -> None:
    calls = await scene.calls(4)
    assert [node for _, _, node in calls].count("node-1") == 2
    for call in calls:
        await goes_on(scene, call)
    await scene.end(*calls)


async def test_draining_node_finishes_its_calls_and_gets_no_new_ones(scene: Scene) -> None:
    edge, one = scene.edge, scene.nodes[0]
    calls = await scene.calls(2)
    kept = next(call for call in calls if call[2] == "node-1")
    one.signal(signal.SIGTERM)
    await edge.until(node_1=False)
    assert await edge.states() == {"node-1": False, "node-2": True}
    others = await scene.calls(3)
    assert names(others) == {"node-2"}
    await goes_on(scene, kept)
    assert one.running
    await scene.end(kept)
    assert await one.ended() == 0
    # Back again, it takes calls again.
    await one.start()
    await edge.until(node_1=True)
    again = await scene.calls(2)
    assert names(again) == {"node-1", "node-2"}
    await scene.end(*others, *again, *(call for call in calls if call is not kept))


async def test_new_node_is_taken_into_use_without_a_restart(scene: Scene) -> None:
    edge = scene.edge
    both = dict(edge.nodes)
    del edge.nodes["node-2"]
    edge.write()
    assert "callshield edge reload" in await edge.render()
    await edge.command("reload")
    calls = await scene.calls(2)
    assert names(calls) == {"node-1"}
    edge.nodes.update(both)
    edge.write()
    await edge.render()
    await edge.command("reload")
    await edge.until(node_2=True)
    calls += await scene.calls(2)
    assert names(calls) == {"node-1", "node-2"}
    await scene.end(*calls)


async def test_call_in_place_of_another_goes_to_the_node_that_has_it(scene: Scene) -> None:
    """An INVITE with Replaces (RFC 3891) names its node; in turn it would meet the wrong one."""
    caller, agent, node = await scene.call()
    for _ in range(2):
        taken = scene.begin(caller.target)
        dialog = f"{caller.call_id};to-tag={caller.remote_tag};from-tag={caller.local_tag}"
        answer = await taken.invite(headers=(f"Replaces: {dialog}",))
        assert answer.status == 200, answer.text
        bye = await scene.pbx.expect(bye_of(caller.call_id), "BYE")
        scene.pbx.reply(bye, 200)
        caller = taken
    await scene.end((caller, agent, node))


async def test_edge_is_restarted_amid_calls(scene: Scene) -> None:
    """The way of a call is in its Route set, and registrations lie in a file."""
    edge = scene.edge
    calls = await scene.calls(2)
    await edge.stop()
    await edge.start()
    for call in calls:
        await goes_on(scene, call)
    calls += await scene.calls(1)
    await scene.end(*calls)


async def test_nobody_takes_calls(scene: Scene) -> None:
    edge = scene.edge
    assert (await options(scene.pbx, edge)).status == 200
    calls = await scene.calls(2)
    for node in scene.nodes:
        await node.drains()
    await edge.until(node_1=False, node_2=False)
    # The PBX that asks how the edge is hears what the nodes say.
    asked = await options(scene.pbx, edge)
    assert (asked.status, asked["Retry-After"]) == (503, "1")
    refused = await scene.begin().invite()
    assert (refused.status, refused["Retry-After"]) == (503, "1")
    await edge.command("status", status=1)
    await scene.end(*calls)
    assert [await node.ended() for node in scene.nodes] == [0, 0]


async def test_draining_node_that_the_edge_has_not_asked_yet(scene: Scene) -> None:
    """Its 503 to the INVITE itself is enough: the next node takes the call, at once."""
    await scene.change("probe_s = 60\n")
    one = scene.nodes[0]
    calls = await scene.calls(2)
    await one.drains()
    refused_before = draining(one)
    began = time.monotonic()
    late = await scene.calls(4)
    took = time.monotonic() - began
    assert names(late) == {"node-2"}
    assert took < 4.0, took  # four calls; none of them waited for edge.failover_ms
    assert draining(one) - refused_before == 2
    await scene.end(*calls, *late)
    assert await one.ended() == 0


def draining(node: BridgeNode) -> int:
    """Calls that it refused because it drains."""
    return sum(entry["reason"] == "draining" for entry in node.logs("invite_refused"))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_call_that_meets_a_dead_node_goes_to_the_next(scene: Scene, transport: str) -> None:
    """kill -9, and OPTIONS come too late to tell: one call waits, the next ones do not."""
    if transport == "tcp":
        nodes = scene.edge.nodes
        nodes.update({name: (f"{uri};transport=tcp", more) for name, (uri, more) in nodes.items()})
    await scene.change("probe_s = 60\n")
    await scene.edge.until(node_1=True, node_2=True)
    scene.nodes[0].signal(signal.SIGKILL)
    waited = []
    for _ in range(4):
        began = time.monotonic()
        call = await scene.call()
        waited.append(time.monotonic() - began)
        assert call[2] == "node-2"
        await scene.end(call)
    # edge.failover_ms (2000), once: then the edge knows.
    assert 1.5 < max(waited) < 4.0, waited
    assert sum(one > 1.5 for one in waited) == 1, waited
    assert "no answer from" in scene.edge.log()
    if transport == "tcp":
        nodes.update({name: (uri.partition(";")[0], more) for name, (uri, more) in nodes.items()})


@dataclass
class Ringing:
    """A call that rings at the phone and in the caller's ear."""

    caller: Dialog
    cseq: int
    invite: Message
    """As the phone got it."""
    node: int

    @classmethod
    async def begin(cls, scene: Scene) -> Ringing:
        caller = scene.begin()
        cseq = caller.send("INVITE", headers=ATTESTED, body=scene.pbx.sdp())
        invite = await scene.rings(caller)
        scene.phone.reply(invite, 180, tag="ringing")
        await caller.response(cseq, "INVITE", least=180)
        sides = [f"@{node.settings.sip.phone.bind}:" for node in scene.nodes]
        return cls(
            caller, cseq, invite, next(n for n, s in enumerate(sides) if s in invite["Contact"])
        )

    async def until_cancelled(self, scene: Scene) -> None:
        """The phone is told to stop, and does."""
        phone = scene.phone
        cancel = await phone.expect(request_of(self.invite["Call-ID"], "CANCEL"), "CANCEL")
        phone.reply(cancel, 200, tag="ringing")
        phone.reply(self.invite, 487, tag="ringing")

    async def answered(self, scene: Scene, invite: Message) -> Call:
        """The phone takes the call; the caller is connected."""
        agent = scene.phone.accept(invite, tag="ringing" if invite is self.invite else "")
        await scene.acknowledged(agent)
        answer = await self.caller.response(self.cseq, "INVITE")
        assert answer.status == 200, answer.text
        self.caller.learn(answer)
        self.caller.send("ACK", cseq=self.cseq)
        node = scene.node_of(answer)
        await scene.node(node).connected(invite["X-Callshield-Call-ID"])
        return self.caller, agent, node

    async def given_up(self, scene: Scene) -> None:
        """The caller hangs up, as somebody must where nothing else ends it."""
        self.caller.send("CANCEL", cseq=self.cseq)
        assert (await self.caller.response(self.cseq, "CANCEL")).status == 200


async def test_call_that_rings_at_a_dead_node_is_taken_over(scene: Scene) -> None:
    """The phone stops ringing for the dead node, rings for the next; the caller is put through."""
    calls = [await Ringing.begin(scene) for _ in range(2)]
    lost, kept = sorted(calls, key=lambda one: one.node)
    assert (lost.node, kept.node) == (0, 1)
    began = time.monotonic()
    scene.nodes[0].signal(signal.SIGKILL)
    await lost.until_cancelled(scene)
    stopped_s = time.monotonic() - began
    again = await scene.rings(lost.caller)
    rings_s = time.monotonic() - began
    call = await lost.answered(scene, again)
    print(f"the phone stopped ringing after {stopped_s:.2f} s, rang again after {rings_s:.2f} s")
    assert call[2] == "node-2"
    # probe_s (1) and failover_ms (2000), and some more on a busy machine.
    assert rings_s < 8
    # The other node's call rings as before, and is answered.
    untouched = await kept.answered(scene, kept.invite)
    assert untouched[2] == "node-2"
    assert scene.phone.waiting("CANCEL") == []
    await scene.end(call, untouched)


async def test_control_without_that_rule_it_rings_on(scene: Scene) -> None:
    await scene.change('without_nodes = "refuse"\n')
    script = scene.edge.folder / "etc/kamailio.cfg"
    text = script.read_text(encoding="utf-8")
    assert text.count("    route(GONE);\n") == 1
    script.write_text(text.replace("    route(GONE);\n", ""), encoding="utf-8")
    await scene.edge.stop()
    await scene.edge.start()
    await scene.edge.until(node_1=True, node_2=True)
    calls = [await Ringing.begin(scene), await Ringing.begin(scene)]
    lost, kept = sorted(calls, key=lambda one: one.node)
    scene.nodes[0].signal(signal.SIGKILL)
    await scene.edge.until(node_1=False)
    await asyncio.sleep(3)  # as long as it takes otherwise
    assert scene.phone.waiting("CANCEL") == []
    assert scene.phone.waiting("INVITE") == []
    await lost.given_up(scene)
    await scene.end(await kept.answered(scene, kept.invite))


async def test_call_that_rings_at_a_draining_node_rings_on(scene: Scene) -> None:
    """A node that answers 503 to OPTIONS lives, and finishes what it has."""
    calls = [await Ringing.begin(scene), await Ringing.begin(scene)]
    kept, other = sorted(calls, key=lambda one: one.node)
    await scene.nodes[0].drains()
    await scene.edge.until(node_1=False)
    await asyncio.sleep(1)  # another OPTIONS
    assert scene.phone.waiting("CANCEL") == []
    call = await kept.answered(scene, kept.invite)
    assert call[2] == "node-1"
    await scene.end(call, await other.answered(scene, other.invite))
    assert await scene.nodes[0].ended() == 0


async def test_call_that_rings_when_the_last_node_dies_is_refused(scene: Scene) -> None:
    """At once, so that the PBX can do what it does then; and the phone is silent."""
    scene.nodes[1].signal(signal.SIGKILL)
    await scene.edge.until(node_2=False)
    lost = await Ringing.begin(scene)
    scene.nodes[0].signal(signal.SIGKILL)
    await lost.until_cancelled(scene)
    refused = await lost.caller.response(lost.cseq, "INVITE")
    assert (refused.status, refused["Retry-After"]) == (503, "1"), refused.text


async def test_without_nodes_the_phone_can_still_ring(scene: Scene) -> None:
    """``without_nodes = "phone"``: better unprotected than unanswered, if the operator says so."""
    await scene.change('without_nodes = "phone"\nprobe_s = 60\n')
    for node in scene.nodes:
        node.signal(signal.SIGKILL)
    for _ in range(2):  # the nodes found dead by this very call, and known to be
        caller = scene.begin()
        answering = asyncio.create_task(caller.invite())
        invite = await scene.rings(caller)
        assert "X-Callshield-Call-ID" not in invite.text
        agent = scene.phone.accept(invite)
        await scene.acknowledged(agent)
        assert (await answering).status == 200
        leaving = asyncio.create_task(caller.ask("BYE"))
        scene.phone.reply(await scene.phone.expect(bye_of(agent.call_id), "BYE"), 200)
        assert (await leaving).status == 200
