"""The file for a caller on the disk: whole with its name, or nothing that anybody could open."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from callshield.errors import CallshieldError
from callshield.privacy_access import AccessError, Answer, write_answer
from callshield.settings import Settings, load_settings
from notifier.database import migrate, place_of
from tests.notifier_kit import write_config
from tests.privacy_kit import CALLER_HZ, loudest_hz, record_call, recording_toml, wave_of
from tests.store_kit import T0, fill, story

CALL = "c" * 32
#: Writes the file, and says when half of the sound is in it; then it waits to be killed.
CHILD = """
import sys, time
from pathlib import Path
from callshield import privacy_access
from callshield.settings import load_settings

blocks = privacy_access.wav_blocks
def half(*arguments):
    for number, block in enumerate(blocks(*arguments)):
        yield block
        if number == 1:
            print("half", flush=True)
            time.sleep(60)
privacy_access.wav_blocks = half
def stored(_):
    print("stored", flush=True)
    time.sleep(60)
if sys.argv[2] == "stored":
    privacy_access.wav_blocks = blocks
folder = Path(sys.argv[1])
privacy_access.write_answer(
    load_settings(folder / "callshield.toml"), folder / "out" / "answer.zip", ["c" * 32],
    given=stored,
)
"""


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """A node with one call and its recording, and an empty folder ``out``."""
    found = load_settings(write_config(tmp_path, 8080, recording_toml(tmp_path)))
    migrate(place_of(found))
    await fill(place_of(found), story(T0, CALL))
    record_call(found, CALL, frames=500)
    (tmp_path / "out").mkdir()
    return found


def nothing(_: Answer) -> None:
    pass


@pytest.mark.parametrize("when", ["half", "stored"])
def test_a_command_that_is_killed_leaves_no_sound_and_no_file(
    settings: Settings, tmp_path: Path, when: str
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), when], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == f"{when}\n"
        # Control: it holds the sound in open files at this moment, none of which has a name.
        mine = [Path(link).readlink() for link in Path(f"/proc/{child.pid}/fd").iterdir()]
        open_there = [str(path) for path in mine if str(path).startswith(str(tmp_path / "out"))]
        assert open_there
        assert all(path.endswith(" (deleted)") for path in open_there)
        assert os.listdir(tmp_path / "out") == []
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert os.listdir(tmp_path / "out") == []
    # The same again, not killed: there it is, and whole.
    out = tmp_path / "out" / "answer.zip"
    write_answer(settings, out, [CALL], given=nothing)
    with zipfile.ZipFile(out) as packed:
        assert packed.testzip() is None
        sound = wave_of(packed.read(f"calls/{CALL}/caller.wav"))
    assert len(sound) >= 500 * 160
    assert loudest_hz(sound) == pytest.approx(CALLER_HZ, abs=2)


def test_it_has_its_name_only_once_that_it_is_given_is_stored(
    settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "answer.zip"

    def refuses(_: Answer) -> None:
        assert os.listdir(out.parent) == []
        raise CallshieldError("the node went away")

    with pytest.raises(CallshieldError, match="went away"):
        write_answer(settings, out, [CALL], given=refuses)
    assert os.listdir(out.parent) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out" / "answer.zip"

    def faster(_: Answer) -> None:
        out.write_bytes(b"somebody else's")

    with pytest.raises(AccessError, match="is there already"):
        write_answer(settings, out, [CALL], given=faster)
    assert out.read_bytes() == b"somebody else's"
    # Unless that was asked for.
    write_answer(settings, out, [CALL], given=faster, overwrite=True)
    assert zipfile.is_zipfile(io.BytesIO(out.read_bytes()))


def test_what_somebody_laid_in_its_way_is_not_written_through(
    settings: Settings, tmp_path: Path
) -> None:
    """Names that the file had before it was whole, and its own, as links to elsewhere."""
    folder, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (folder / "answer.zip.part").symlink_to(victim)
    write_answer(settings, folder / "answer.zip", [CALL], given=nothing)
    (folder / "other.zip").symlink_to(victim)
    with pytest.raises(AccessError, match="is there already"):
        write_answer(settings, folder / "other.zip", [CALL], given=nothing)
    write_answer(settings, folder / "other.zip", [CALL], given=nothing, overwrite=True)
    assert victim.read_bytes() == b"untouched"
    assert not (folder / "other.zip").is_symlink()
