"""Bandwidth of a call by codec: real speech through the real encoders, and the headers round it.

python -m tests.load.bandwidth
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import numpy as np
import soxr

from callshield.audio_codecs import encoder
from callshield.bench_speech import shipped_clips
from callshield.tap import TapCodec
from sipbridge.prompt_file import load_prompt

PACKETS_PER_S = 50
#: RTP (RFC 3550), UDP, IPv4 without options.
RTP, UDP, IPV4 = 12, 8, 20
#: Ethernet: header and check sum; with preamble and gap, which a line's capacity counts too.
ETHERNET, ETHERNET_LINE = 18, 38
#: Authentication tag of AES_CM_128_HMAC_SHA1_80 (RFC 4568).
SRTP_TAG = 10


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction of one leg, 20 ms a packet."""

    codec: str
    payload_bytes: float
    """Mean."""
    payload_p99: float

    def kbit_s(self, extra: int = 0) -> float:
        """At IP, with so many bytes more a packet."""
        return (self.payload_bytes + RTP + UDP + IPV4 + extra) * 8 * PACKETS_PER_S / 1000


def payload_sizes(codec: TapCodec) -> list[int]:
    """Bytes of each packet of all shipped sentences, calm and shouted."""
    made = encoder(codec, 20)
    sizes: list[int] = []
    for clip in shipped_clips():
        pcm = load_prompt(clip.path).pcm
        if made.rate_hz != 8000:
            pcm = soxr.resample(pcm.astype(np.float32), 8000, made.rate_hz)
            pcm = np.clip(pcm, -32768, 32767).astype(np.int16)
        sizes += [len(packet) for packet in made.encode(pcm)]
    return sizes


def streams() -> list[Stream]:
    """Every codec that the node takes."""
    found = []
    for codec in (TapCodec.PCMU, TapCodec.G722, TapCodec.OPUS):
        sizes = payload_sizes(codec)
        name = "PCMU, PCMA" if codec is TapCodec.PCMU else codec.name
        found.append(Stream(name, float(np.mean(sizes)), float(np.quantile(sizes, 0.99))))
    return found


def row(one: Stream) -> dict[str, object]:
    """For the table: kbit/s of a stream, Mbit/s of the node for 100 calls (two legs, both ways)."""
    return {
        "codec": one.codec,
        "payload_bytes": round(one.payload_bytes, 1),
        "payload_p99": one.payload_p99,
        "ip_kbit_s": round(one.kbit_s(), 1),
        "ip_srtp_kbit_s": round(one.kbit_s(SRTP_TAG), 1),
        "ethernet_kbit_s": round(one.kbit_s(ETHERNET), 1),
        # In and out: each of the two legs has one stream in and one out.
        "node_mbit_s_each_way_per_100_calls": round(100 * 2 * one.kbit_s(ETHERNET_LINE) / 1000, 1),
        "node_packets_per_s_each_way_per_100_calls": 100 * 2 * PACKETS_PER_S,
    }


def main() -> None:
    """Command line."""
    for one in streams():
        sys.stdout.write(json.dumps(row(one)) + "\n")


if __name__ == "__main__":
    main()
