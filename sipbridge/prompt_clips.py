"""Prompts in the form that the relay plays, kept for the next call."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from callshield.audio_codecs import packet_ms
from callshield.g711 import PCMA, PCMU
from callshield.tap import TapCodec
from sipbridge.prompt_file import Prompt, PromptCache
from sipbridge.relay_core import Clip

#: Clips kept: a node has a dozen prompts in one or two forms each.
KEPT = 128

#: Codec, packet length (0 where the clip fits any) and gain.
_Form = tuple[TapCodec, int, float]


class ClipCache:
    """Clips by file and form; a file that changed on disk is loaded anew.

    :meth:`cached` reads no file and may be called from the event loop; :meth:`load` does, and may
    encode: it belongs in a thread.
    """

    def __init__(self) -> None:
        self._files = PromptCache()
        self._clips: OrderedDict[tuple[Path, _Form], tuple[Prompt, Clip]] = OrderedDict()
        self._lock = Lock()

    def cached(
        self, path: Path, codec: TapCodec, ptime_ms: int, gain_db: float, sha256: str = ""
    ) -> Clip | None:
        """The clip, when its file is the one that was loaded.

        Args:
            path: of the WAV file.
            codec: of the leg.
            ptime_ms: of the leg; G.711 clips fit any.
            gain_db: at most 0.
            sha256: what the file has to hold; empty: whatever it holds.
        """
        prompt = self._files.cached(path, gain_db, sha256=sha256)
        with self._lock:
            entry = self._clips.get((path, _form(codec, ptime_ms, gain_db)))
        return entry[1] if entry is not None and entry[0] is prompt else None

    def load(
        self, path: Path, codec: TapCodec, ptime_ms: int, gain_db: float, sha256: str = ""
    ) -> Clip:
        """The clip, from disk when need be.

        Raises:
            SetupError: see :meth:`sipbridge.prompt_file.PromptCache.load`.
        """
        known = self.cached(path, codec, ptime_ms, gain_db, sha256)
        if known is not None:
            return known
        if codec in (TapCodec.PCMU, TapCodec.PCMA):
            prompt = self._files.load(path, gain_db, sha256=sha256)
            clip = Clip(prompt.encoded[PCMU], prompt.encoded[PCMA])
        else:
            prompt = self._files.load(path, gain_db, [(codec, ptime_ms)], sha256=sha256)
            clip = Clip(
                codec=int(codec),
                packets=prompt.frames(codec, ptime_ms),
                packet_ms=packet_ms(codec, ptime_ms),
            )
        with self._lock:
            self._clips[path, _form(codec, ptime_ms, gain_db)] = (prompt, clip)
            while len(self._clips) > KEPT:
                self._clips.popitem(last=False)
        return clip


def _form(codec: TapCodec, ptime_ms: int, gain_db: float) -> _Form:
    if codec in (TapCodec.PCMU, TapCodec.PCMA):
        return (TapCodec.PCMU, 0, gain_db)
    return (codec, ptime_ms, gain_db)
