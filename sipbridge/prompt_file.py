"""A prompt as the relay plays it: a WAV file of 8 kHz, 16 bit, mono, encoded once per law."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from callshield.errors import SetupError
from sipbridge import g711


@dataclass(frozen=True, slots=True)
class Prompt:
    """An encoded prompt."""

    encoded: dict[int, bytes]
    """One byte a sample, by payload type (0 µ-law, 8 A-law)."""

    @property
    def samples(self) -> int:
        return len(self.encoded[g711.PCMU])


def load_prompt(path: Path) -> Prompt:
    """Read and encode a WAV file.

    Raises:
        SetupError: it is missing, or is not 8 kHz, 16 bit, mono, or holds no sample.
    """
    remedy = "replace it by a WAV file of 8 kHz, 16 bit, mono"
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getsampwidth() * 8, file.getnchannels())
            data = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise SetupError(
            f"the prompt {path} does not exist: check notice.prompt_dir and notice.language"
        ) from None
    except (OSError, EOFError, wave.Error) as error:
        raise SetupError(f"the prompt {path} cannot be read ({error}): {remedy}") from None
    if form != (g711.SAMPLE_RATE_HZ, 16, 1):
        rate_hz, bits, channels = form
        raise SetupError(
            f"the prompt {path} has {rate_hz} Hz, {bits} bit, {channels} channel(s), "
            "not 8000 Hz, 16 bit, 1 channel: convert it"
        )
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)
    if not len(samples):
        raise SetupError(f"the prompt {path} is empty: {remedy}")
    return Prompt({law: g711.encode(samples, law) for law in g711.VOICE_PAYLOAD_TYPES})


class PromptCache:
    """Prompts already loaded; a file that changed on disk is loaded anew.

    :meth:`cached` does not read a file and may be called from the event loop; :meth:`load` does
    and belongs in a thread.
    """

    def __init__(self) -> None:
        self._prompts: dict[Path, tuple[tuple[int, int], Prompt]] = {}

    def cached(self, path: Path) -> Prompt | None:
        """The prompt, when the file is the one that was loaded."""
        entry = self._prompts.get(path)
        if entry is None:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        return entry[1] if entry[0] == (status.st_mtime_ns, status.st_size) else None

    def load(self, path: Path) -> Prompt:
        """The prompt, from disk when need be.

        Raises:
            SetupError: see :func:`load_prompt`.
        """
        known = self.cached(path)
        if known is not None:
            return known
        prompt = load_prompt(path)
        status = path.stat()
        self._prompts[path] = ((status.st_mtime_ns, status.st_size), prompt)
        return prompt
