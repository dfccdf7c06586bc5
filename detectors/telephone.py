"""A simulated telephone channel, for training and evaluation.

Everything that the model learns from or is measured on passes through it, or the model would
learn the corpora's rooms, rates and levels instead of voices. Seeded: the same generator state
gives the same samples.

Stages, in the order of a real call: room, microphone response, automatic gain, band of the line
(ITU-T G.712: 300 to 3400 Hz), gain, noise, clipping, the mobile network's codec where there is one
(GSM 06.10 full rate), the line's codec (G.711 with µ-law or A-law, G.722, Opus), lost packets
(silence, as the detector's own concealment).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from callshield import g711
from callshield.audio_codecs import Encoder, decoder, encoder
from callshield.tap import TapCodec
from detectors.resample import RATE, to_int16

_PACKET = 160


@dataclass(frozen=True, slots=True)
class Line:
    """One telephone line; what a call keeps from its first to its last packet."""

    low_hz: float = 300.0
    """Lower corner (-6 dB) of the band."""
    high_hz: float = 3400.0
    """Upper corner (-6 dB) of the band."""
    response_db: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """Microphone response at 300, 600, 1200, 2400, 3400 Hz, in dB."""
    level_dbfs: float = -24.0
    """Active level of the voice, RMS of its loud half, relative to full scale."""
    snr_db: float = 35.0
    """Voice over noise, in dB."""
    noise_tilt_db_per_octave: float = -3.0
    """Slope of the noise: 0 white, -3 pink, -6 brown."""
    drive_db: float = 0.0
    """Overdrive before the clipper: above 0 the peaks are cut."""
    codec: TapCodec = TapCodec.PCMU
    """What the line's packets are encoded with."""
    gsm: bool = False
    """A mobile network's full-rate codec (GSM 06.10) before the line."""
    room_s: float = 0.0
    """Reverberation time of the room (-60 dB), in seconds; 0: none."""
    room_db: float = -12.0
    """Energy of the reverberation relative to the direct sound, in dB."""
    agc: float = 0.0
    """Share of the level's changes that an automatic gain takes away, 0..1."""
    loss: float = 0.0
    """Share of packets lost, 0..1."""
    burst: float = field(default=0.3)
    """Chance that a loss is followed by another."""


#: A clean line: band and codec, nothing else.
CLEAN = Line(snr_db=60.0)


def random_line(rng: np.random.Generator) -> Line:
    """Draw a line as bad as lines get, most of them decent."""
    return Line(
        # Softphones pass nearly everything, trunks cut at 300 Hz.
        low_hz=float(rng.uniform(50, 340)),
        high_hz=float(rng.uniform(3100, 3900)),
        response_db=tuple(float(v) for v in rng.normal(0.0, 2.5, 5)),
        level_dbfs=float(rng.uniform(-38, -14)),
        snr_db=float(rng.choice([rng.uniform(5, 15), rng.uniform(15, 30), rng.uniform(30, 50)])),
        noise_tilt_db_per_octave=float(rng.uniform(-6, 0)),
        drive_db=float(rng.uniform(3, 15)) if rng.random() < 0.15 else 0.0,
        codec=_CODECS[int(rng.choice(len(_CODECS), p=_CODEC_SHARES))],
        gsm=bool(rng.random() < 0.15),
        room_s=float(rng.uniform(0.1, 0.6)) if rng.random() < 0.35 else 0.0,
        room_db=float(rng.uniform(-18, -3)),
        agc=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.3 else 0.0,
        loss=float(rng.uniform(0.005, 0.05)) if rng.random() < 0.25 else 0.0,
    )


_CODECS = (TapCodec.PCMU, TapCodec.PCMA, TapCodec.G722, TapCodec.OPUS)
_CODEC_SHARES = (0.4, 0.4, 0.08, 0.12)
#: Time constant of the automatic gain, in seconds.
_AGC_S = 0.3
#: Frames this far under the loud half are not lifted by the automatic gain, in dB.
_AGC_FLOOR_DB = -20.0


def _loud_rms(audio: NDArray[np.float32]) -> float:
    usable = audio[: len(audio) // _PACKET * _PACKET]
    if not len(usable):
        return float(np.sqrt(np.mean(np.square(audio)) + 1e-12)) if len(audio) else 1e-6
    power = np.sort(np.mean(np.square(usable.reshape(-1, _PACKET)), axis=1))
    return float(np.sqrt(power[len(power) // 2 :].mean() + 1e-12))


def _filtered(audio: NDArray[np.float32], line: Line) -> NDArray[np.float32]:
    size = 1 << (len(audio) + 1024).bit_length()
    hz = np.fft.rfftfreq(size, 1.0 / RATE)
    octave = np.log2(np.maximum(hz, 50.0))
    knots = np.log2(np.array([300.0, 600.0, 1200.0, 2400.0, 3400.0]))
    gain_db = np.interp(octave, knots, line.response_db)
    # Butterworth magnitudes of order 5 (low corner) and 10 (high corner).
    low = 1.0 / np.sqrt(1.0 + (line.low_hz / np.maximum(hz, 1.0)) ** 10)
    high = 1.0 / np.sqrt(1.0 + (hz / line.high_hz) ** 20)
    spectrum = np.fft.rfft(audio, size) * (10 ** (gain_db / 20.0)) * low * high
    result: NDArray[np.float32] = np.fft.irfft(spectrum)[: len(audio)].astype(np.float32)
    return result


def _noise(length: int, tilt_db: float, rng: np.random.Generator) -> NDArray[np.float32]:
    size = max(_PACKET, length)
    hz = np.fft.rfftfreq(size, 1.0 / RATE)
    shape = 10 ** (tilt_db * np.log2(np.maximum(hz, 50.0) / 1000.0) / 20.0)
    shape[hz < 100] = 0.0
    made = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * shape, size)[:length]
    result: NDArray[np.float32] = (made / (np.std(made) + 1e-9)).astype(np.float32)
    return result


def _in_room(
    audio: NDArray[np.float32], line: Line, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise with an exponential decay stands for a room's late reflections (Polack 1988)."""
    length = int(line.room_s * RATE)
    decay = 10 ** (-3.0 * np.arange(length) / length)
    tail = rng.standard_normal(length) * decay
    # The first reflections of a handset or a desk come after a few milliseconds.
    tail[: int(0.004 * RATE)] = 0.0
    tail *= 10 ** (line.room_db / 20.0) / (np.sqrt(np.square(tail).sum()) + 1e-9)
    tail[0] = 1.0
    size = 1 << (len(audio) + length).bit_length()
    spectrum = np.fft.rfft(audio, size) * np.fft.rfft(tail, size)
    result: NDArray[np.float32] = np.fft.irfft(spectrum)[: len(audio)].astype(np.float32)
    return result


def _evened(audio: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Automatic gain: a slow follower of the level takes a share of its changes away."""
    usable = len(audio) // _PACKET
    if usable < 2:
        return audio
    frames = audio[: usable * _PACKET].reshape(-1, _PACKET)
    level_db = 10.0 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    reference = 20.0 * np.log10(_loud_rms(audio))
    wanted = np.maximum(level_db - reference, _AGC_FLOOR_DB)
    forget = np.exp(-_PACKET / RATE / _AGC_S)
    slow = np.empty(usable)
    now = 0.0
    for i, value in enumerate(wanted):
        now = forget * now + (1.0 - forget) * float(value)
        slow[i] = now
    at = (np.arange(usable) + 0.5) * _PACKET
    gain_db = np.interp(np.arange(len(audio)), at, -share * slow)
    result: NDArray[np.float32] = (audio * 10 ** (gain_db / 20.0)).astype(np.float32)
    return result


def _through_gsm(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    coded = io.BytesIO()
    soundfile.write(coded, pcm, RATE, format="WAV", subtype="GSM610")
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="int16")
    return np.asarray(np.resize(decoded, len(pcm)), dtype=np.int16)


def _through(pcm: NDArray[np.int16], codec: TapCodec) -> NDArray[np.int16]:
    if codec in (TapCodec.PCMU, TapCodec.PCMA):
        return np.array(g711.decode(g711.encode(pcm, codec), codec))
    made: Encoder = encoder(codec, 20)
    wide = soxr.resample(pcm.astype(np.float32) / 32768.0, RATE, made.rate_hz)
    packets = made.encode(to_int16(wide)) + made.finish()
    source = decoder(codec, RATE)
    decoded = np.concatenate([source.decode(packet) for packet in packets])
    out = np.zeros(len(pcm), dtype=np.int16)
    kept = min(len(out), len(decoded))
    out[:kept] = decoded[:kept]
    return out


def transmit(
    audio: NDArray[np.float32],
    line: Line,
    rng: np.random.Generator,
    background: NDArray[np.float32] | None = None,
) -> NDArray[np.int16]:
    """Send audio down a line.

    Args:
        audio: ``(n,)`` float32 at 8 kHz, any level.
        line: the line's properties.
        rng: source of noise and losses.
        background: recorded noise at 8 kHz to mix instead of made noise; repeated as needed.

    Returns:
        ``(n,)`` int16 as the detector's decoder gives it.

    Raises:
        SetupError: the line's codec needs a library that is not installed.
    """
    if not len(audio):
        return np.zeros(0, dtype=np.int16)
    voice = _in_room(audio, line, rng) if line.room_s > 0 else audio
    voice = _evened(voice, line.agc) if line.agc > 0 else voice
    voice = _filtered(voice, line)
    gain = 10 ** (line.level_dbfs / 20.0) / _loud_rms(voice)
    voice = voice * np.float32(gain)
    if background is not None and len(background):
        start = int(rng.integers(len(background)))
        noise = np.resize(np.roll(background, -start), len(voice)).astype(np.float32)
        noise = _filtered(noise, line)
    else:
        noise = _noise(len(voice), line.noise_tilt_db_per_octave, rng)
    noise_rms = float(np.sqrt(np.mean(np.square(noise)) + 1e-12))
    voice = voice + noise * np.float32(10 ** ((line.level_dbfs - line.snr_db) / 20.0) / noise_rms)
    if line.drive_db > 0:
        peak = float(np.abs(voice).max()) + 1e-9
        voice = np.clip(voice, -peak * 10 ** (-line.drive_db / 20.0), None)
        voice = np.minimum(voice, peak * np.float32(10 ** (-line.drive_db / 20.0)))
    pcm = to_int16(voice.astype(np.float32))
    if line.gsm:
        pcm = _through_gsm(pcm)
    pcm = _through(pcm, line.codec)
    lost = False
    for start in range(0, len(pcm), _PACKET):
        lost = bool(rng.random() < (line.burst if lost else line.loss)) and line.loss > 0
        if lost:
            pcm[start : start + _PACKET] = 0
    return pcm
