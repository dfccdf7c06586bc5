"""Prompts in the form that the relay plays, kept for the next call."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock

import numpy as np

from sipbridge import g711
from sipbridge.prompt_file import Prompt, PromptCache
from sipbridge.relay_core import Clip

#: Clips kept: a node has a dozen prompts in one or two forms each.
KEPT = 128

_Form = tuple[str, int, float]


class ClipCache:
    """Clips by file and form; a file that changed on disk is loaded anew.

    :meth:`cached` reads no file and may be called from the event loop; :meth:`load` does, and may
    encode: it belongs in a thread.
    """

    def __init__(self) -> None:
        self._files = PromptCache()
        self._clips: OrderedDict[tuple[Path, _Form], tuple[Prompt, Clip]] = OrderedDict()
        self._lock = Lock()

    def cached(self, path: Path, codec: str, ptime_ms: int, gain_db: float) -> Clip | None:
        """The clip, when its file is the one that was loaded.

        Args:
            path: of the WAV file.
            codec: encoding name of the leg.
            ptime_ms: of the leg; G.711 clips fit any.
            gain_db: at most 0.
        """
        prompt = self._files.cached(path)
        entry = self._clips.get((path, _form(codec, ptime_ms, gain_db)))
        return entry[1] if entry is not None and entry[0] is prompt else None

    def load(self, path: Path, codec: str, ptime_ms: int, gain_db: float) -> Clip:
        """The clip, from disk when need be.

        Raises:
            SetupError: see :func:`sipbridge.prompt_file.load_prompt`.
        """
        known = self.cached(path, codec, ptime_ms, gain_db)
        if known is not None:
            return known
        prompt = self._files.load(path)
        clip = _encode(prompt, codec, ptime_ms, gain_db)
        with self._lock:
            self._clips[path, _form(codec, ptime_ms, gain_db)] = (prompt, clip)
            while len(self._clips) > KEPT:
                self._clips.popitem(last=False)
        return clip


def _form(codec: str, ptime_ms: int, gain_db: float) -> _Form:
    return ("G711", 0, gain_db) if codec in ("PCMU", "PCMA") else (codec, ptime_ms, gain_db)


def _encode(prompt: Prompt, codec: str, ptime_ms: int, gain_db: float) -> Clip:
    if gain_db == 0.0:
        return Clip(prompt.encoded[g711.PCMU], prompt.encoded[g711.PCMA])
    samples = g711.decode(prompt.encoded[g711.PCMU], g711.PCMU) * 10 ** (min(gain_db, 0.0) / 20)
    quiet = np.round(samples).astype(np.int16)
    return Clip(g711.encode(quiet, g711.PCMU), g711.encode(quiet, g711.PCMA))
