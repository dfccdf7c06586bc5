"""The PBX plays the notices before the queue, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from callshield.heard import find, read_growing_wav, read_wav
from tests.pbx.asterisk import PROMPTS
from tests.pbx.floor import AGENT_HZ, Floor, floor, until_hears

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]


def played_by_pbx(all_: Floor, name: str) -> bool:
    """The caller heard this announcement, whole, as the PBX has it."""
    heard = read_growing_wav(all_.caller.recording())
    found = find(read_wav(PROMPTS / f"{name}.wav"), heard)
    return found is not None and found.whole


async def test_notice_of_the_pbx_is_not_repeated(tmp_path: Path, asterisk_root: Path) -> None:
    async with floor(tmp_path, asterisk_root, peer_options="attests_notice = true\n") as all_:
        await all_.dial("601")
        finished = await all_.events.wait("notice.finished")
        assert finished["source"] == "upstream"
        await all_.events.wait("tap.started")
        await until_hears(all_.caller, AGENT_HZ)
        assert not all_.events.seen("notice.started")
        await all_.hang_up()
        assert played_by_pbx(all_, "abuse_prevention")
        assert played_by_pbx(all_, "recording")


async def test_the_word_of_a_pbx_that_is_not_trusted_is_not_believed(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(tmp_path, asterisk_root) as all_:
        await all_.dial("601")
        finished = await all_.events.wait("notice.finished")
        assert finished["source"] == "played"
        await all_.hang_up()


async def test_a_notice_that_the_pbx_cannot_play_is_played_by_callshield(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """A sound file is missing: nothing is said in the header."""
    async with floor(
        tmp_path,
        asterisk_root,
        peer_options="attests_notice = true\n",
        replace={"callshield/abuse_prevention&": "callshield/no_such_file&"},
    ) as all_:
        await all_.dial("601")
        finished = await all_.events.wait("notice.finished")
        assert finished["source"] == "played"
        await all_.hang_up()
