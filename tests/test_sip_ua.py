"""The scripted telephone itself: what RFC 3261 asks of any user agent, and tests rest on."""

from __future__ import annotations

import asyncio

from tests.peers.sip_ua import request_of, running_ua

HERE, THERE = "127.0.90.1", "127.0.90.2"


async def test_a_2xx_that_comes_again_is_acknowledged_again() -> None:
    """RFC 3261 section 13.2.2.4; without it one lost ACK is lost for good."""
    async with running_ua(HERE, "one") as one, running_ua(THERE, "other") as other:
        caller = one.begin(other.uri, other.address, other.port)
        asking = asyncio.create_task(caller.invite())
        invite = await other.request("INVITE")
        other.accept(invite)
        assert (await asking).status == 200
        ack = await other.expect(request_of(caller.call_id, "ACK"), "ACK")
        # Kept under other keys of the log: what is the same message comes out of the inbox once.
        before = other.log.count(f"< {ack.text}")
        assert other._transport is not None
        answer = other._sent[(invite["Via"], "INVITE")]
        other._transport.sendto(answer, (one.address, one.port))
        async with asyncio.timeout(10):
            while other.log.count(f"< {ack.text}") == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # a list tells nobody
        assert other.log.count(f"< {ack.text}") == before + 1
        # And nobody takes the answer for a second one.
        assert not [m for m in one._inbox if m.status]


async def test_an_answer_that_was_not_acknowledged_stays_so() -> None:
    """A test may withhold the ACK: then nothing acknowledges by itself."""
    async with running_ua(HERE, "one") as one, running_ua(THERE, "other") as other:
        caller = one.begin(other.uri, other.address, other.port)
        cseq = caller.send("INVITE", body=one.sdp())
        invite = await other.request("INVITE")
        other.accept(invite)
        await caller.response(cseq, "INVITE")
        assert other._transport is not None
        other._transport.sendto(other._sent[(invite["Via"], "INVITE")], (one.address, one.port))
        marker = caller.send("OPTIONS")  # what comes after it came after all of that
        asked = await other.request("OPTIONS")
        other.reply(asked, 200)
        await caller.response(marker, "OPTIONS")
        assert not other.waiting("ACK")


async def test_requests_are_told_by_their_dialog() -> None:
    async with running_ua(HERE, "one") as one, running_ua(THERE, "other") as other:
        calls = [one.begin(other.uri, other.address, other.port) for _ in range(2)]
        for call in calls:
            call.send("BYE")
        second = await other.expect(request_of(calls[1].call_id, "BYE"), "BYE")
        assert second["Call-ID"] == calls[1].call_id
        other.reply(second, 200)
        # The answer to a BYE is no BYE.
        await calls[1].response(1, "BYE")
        assert not [m for m in one._inbox if request_of(calls[1].call_id, "BYE")(m)]
        one.forget()
        other.forget()
        assert not other.waiting("BYE")
