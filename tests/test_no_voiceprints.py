"""Nobody is recognised by voice: what is measured of one lives as long as its call."""

from __future__ import annotations

import gc
import uuid
import weakref

import msgspec
import numpy as np

from callshield import g711
from callshield.messages import CallAnalysed
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import engine
from detectors.acoustic import SHIPPED, AcousticModel
from detectors.engine import IDLE_S, CallerVoice, Detector
from detectors.resample import to_int16
from notifier import schema
from tests.detector_sounds import calm_voice

CALL = uuid.uuid4().bytes


class WatchedVoice(CallerVoice):
    """One that a weak reference can be made of."""

    __slots__ = ("__weakref__",)


def frames(seconds: float) -> list[CallerFrame]:
    payload = g711.encode(to_int16(calm_voice(seconds)), g711.PCMU)
    return [
        CallerFrame(
            CALL, TapKind.AUDIO, TapCodec.PCMU, n, n * 160, n * 20, payload[n * 160 : n * 160 + 160]
        )
        for n in range(len(payload) // 160)
    ]


def test_nothing_of_a_voice_outlives_its_call() -> None:
    detector = Detector(AcousticModel(SHIPPED))
    detector.feed(frames(4.0), 0.0)
    call = detector._calls[CALL]
    call.voice = WatchedVoice()
    # Its figures, as they would be if the whole call had been calm speech.
    call.voice.learn(np.ones(engine.features.FEATURE_COUNT, np.float32), 8.0)  # type: ignore[attr-defined]
    left = weakref.ref(call.voice)
    del call
    detector.step(0.5)
    gc.collect()
    assert left() is not None, "the control: it is there while the call lasts"
    detector.step(IDLE_S + 1.0)
    assert not detector.knows(CALL)
    told = detector.take_figures()
    gc.collect()
    assert left() is None, f"somebody still holds it: {gc.get_referrers(left())}"
    assert [call_id for call_id, _ in told] == [CALL]


def test_what_is_stored_of_an_analysed_call_is_single_figures() -> None:
    """Seconds, counts and thresholds: no list, no bytes that could hold a voice."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(CallAnalysed)}
    plain = (str, int, float, bool, float | None, int | None, str | None)
    assert all(kind in plain for kind in kinds.values()), kinds
    words = ("embedding", "voiceprint", "speaker", "features", "mfcc", "vector")
    names = [column.name for table in schema.metadata.tables.values() for column in table.columns]
    assert names
    assert not [name for name in names if any(word in name for word in words)]
