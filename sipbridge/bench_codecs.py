"""What the codecs cost on this machine: ``python -m sipbridge.bench_codecs``.

Decodes the Korean notice again and again as a live stream does, packet by packet, encodes it as a
prompt, and counts the memory of many streams. Prints one JSON object.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from callshield.audio_codecs import DECODED_RATES_HZ, Decoder, decoder, encoder
from callshield.tap import TapCodec
from sipbridge.prompt_catalogue import SHIPPED
from sipbridge.prompt_file import load_prompt

#: Streams whose memory is counted.
STREAMS = 500
_ROUNDS = 7


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def _decode_us(codec: TapCodec, rate_hz: int, packets: list[bytes]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        stream = decoder(codec, rate_hz)
        begun = time.process_time()
        for packet in packets:
            stream.decode(packet)
        best = min(best, (time.process_time() - begun) / len(packets))
    return round(best * 1e6, 2)


def measure(seconds: float = 10.0) -> dict[str, Any]:
    """Run the bench.

    Args:
        seconds: of the notice, at most its length.

    Returns:
        By codec: ``decode_us`` of a 20 ms packet by output rate (CPU time, best of seven rounds),
        ``encode_ms`` of the whole notice in 20 ms packets, ``packet_bytes`` (mean),
        ``loaded_kib`` (resident memory that the first stream adds, its library and what it
        touches included) and ``stream_kib`` (of each further one).
    """
    notice = load_prompt(SHIPPED / "ko" / "abuse_prevention.wav")
    count = min(int(seconds * 8000), len(notice.pcm))
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    for codec, rates in DECODED_RATES_HZ.items():
        prompt = type(notice)(
            {law: data[:count] for law, data in notice.encoded.items()}, notice.pcm[:count]
        )
        before = _resident_kib()
        streams: list[Decoder] = [decoder(codec, 8000)]
        packet = encoder(codec, 20, 8000).encode(prompt.pcm[4000:4160])[0]
        streams[0].decode(packet)
        loaded = _resident_kib()
        for _ in range(STREAMS):
            streams.append(decoder(codec, 8000))
            streams[-1].decode(packet)
        each = (_resident_kib() - loaded) / STREAMS
        begun = time.process_time()
        packets = prompt.frames(codec, 20)
        encode_s = time.process_time() - begun
        found[codec.name] = {
            "decode_us": {str(rate): _decode_us(codec, rate, packets) for rate in rates},
            "encode_ms": round(encode_s * 1e3, 1),
            "packet_bytes": round(sum(map(len, packets)) / len(packets), 1),
            "loaded_kib": loaded - before,
            "stream_kib": round(each, 1),
        }
        del streams
    found["notice_s"] = round(count / 8000, 2)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=1) + "\n")
