"""The sentences made for training, the data's table, and the command without its packages."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from callshield.errors import SetupError
from detectors.words import corpus
from detectors.words.lexicon import CATEGORIES, LANGUAGES, expand
from tests.words_kit import SENTENCES

ROOT = Path(__file__).parent.parent


def made(language: str) -> dict[str, set[str]]:
    table = tomllib.loads((corpus.MADE / f"{language}.toml").read_text(encoding="utf-8"))
    return {
        kind: {text for p in patterns for text in expand(p)} for kind, patterns in table.items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_of_the_tests_was_trained_on(language: str) -> None:
    tested = tomllib.loads((SENTENCES / f"{language}.toml").read_text(encoding="utf-8"))
    trained = set().union(*made(language).values())
    for sentences in tested.values():
        assert not trained & set(sentences)


@pytest.mark.parametrize("language", LANGUAGES)
def test_made_sentences_cover_every_kind_and_are_drawn_alike_each_time(language: str) -> None:
    assert set(made(language)) == {"calm", *CATEGORIES}
    rows = corpus.made(language, 7)
    assert rows == corpus.made(language, 7)
    assert rows != corpus.made(language, 8)
    assert {row.category for row in rows} == {"", *CATEGORIES}
    assert not any(row.abusive for row in rows if row.category in ("", "crisis"))
    assert all(row.abusive for row in rows if row.category not in ("", "crisis"))


def table(folder: Path, text: str) -> Path:
    (folder / "text").mkdir()
    with gzip.open(folder / "text" / "train.tsv.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    return folder


def test_the_data_s_table_is_read_by_language(tmp_path: Path) -> None:
    folder = table(
        tmp_path,
        "lang\tlabel\tsource\tlicence\ttext\n"
        "ko\t1\tbeep/hate\tBY-SA\t나쁜 말\n"
        "en\t0\tconvabuse_train\tBY\tgood\tday\n",
    )
    assert corpus.read(folder, "train", "ko") == [corpus.Row("나쁜 말", True, "beep/hate", "hate")]
    (row,) = corpus.read(folder, "train", "en")
    assert (row.text, row.family) == ("good\tday", "convabuse")


@pytest.mark.parametrize("text", ["", "a\tb\n", "lang\tlabel\tsource\tlicence\ttext\nko\t1\n"])
def test_another_table_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError, match=r"train\.tsv\.gz"):
        corpus.read(table(tmp_path, text), "train", "ko")


def test_no_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="--data"):
        corpus.read(tmp_path, "train", "ko")


def test_training_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.tsv.gz").touch()
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        f"sys.argv = ['callshield', 'train', 'text', '--data', {str(tmp_path)!r}]\n"
        "from callshield.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "requirements-train.lock" in done.stderr
    assert "Traceback" not in done.stderr
