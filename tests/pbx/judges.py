"""What Asterisk itself says of a call: its records, and its figures of each channel's RTP."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CdrRow:
    """A row of ``Master.csv`` (``cdr_csv`` with unique ids)."""

    source: str
    destination: str
    context: str
    channel: str
    destination_channel: str
    last_application: str
    duration_s: int
    answered_s: int
    disposition: str
    unique_id: str


def read_cdr(text: str) -> list[CdrRow]:
    """The rows of a call detail file, in order."""
    return [
        CdrRow(
            source=row[1],
            destination=row[2],
            context=row[3],
            channel=row[5],
            destination_channel=row[6],
            last_application=row[7],
            duration_s=int(row[12]),
            answered_s=int(row[13]),
            disposition=row[14],
            unique_id=row[16],
        )
        for row in csv.reader(text.splitlines())
        if len(row) >= 17
    ]


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """A row of ``pjsip show channelstats``."""

    channel: str
    """Without ``PJSIP/``; cut to 18 characters by Asterisk."""
    codec: str
    received: int
    received_lost: int
    sent: int
    sent_lost: int


_STATS = re.compile(
    r"^\s*(?P<bridge>\S+)?\s+(?P<channel>\S+)\s+(?P<up>\d\d:\d\d:\d\d)\s+(?P<codec>\S+)\s+"
    r"(?P<rx>\d+)(?P<rk>K?)\s+(?P<rxlost>\d+)\s+\d+\s+[\d.]+\s+"
    r"(?P<tx>\d+)(?P<tk>K?)\s+(?P<txlost>\d+)\s+\d+\s+[\d.]+\s+[\d.]+\s*$"
)


def read_channel_stats(text: str) -> list[ChannelStats]:
    """The rows of channels that have RTP."""
    found = []
    for line in text.splitlines():
        row = _STATS.match(line)
        if row is not None:
            found.append(
                ChannelStats(
                    channel=row["channel"],
                    codec=row["codec"],
                    received=int(row["rx"]) * (1000 if row["rk"] else 1),
                    received_lost=int(row["rxlost"]),
                    sent=int(row["tx"]) * (1000 if row["tk"] else 1),
                    sent_lost=int(row["txlost"]),
                )
            )
    return found
