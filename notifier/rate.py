"""How much one token or one address may ask: token buckets, bounded in number. Pure."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

#: Askers remembered at once. Whoever is forgotten begins with a full bucket.
ASKERS = 10_000


@dataclass(slots=True)
class _Bucket:
    filled: float
    at_s: float


class Rate:
    """One limit for many askers.

    Args:
        per_s: requests a second in the long run.
        burst: requests at once after a pause.
        askers: how many are remembered; beyond it the one that asked longest ago is forgotten.
    """

    def __init__(self, per_s: float, burst: int, askers: int = ASKERS) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._askers = askers
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, asker: Hashable, now_s: float) -> float:
        """Count one request.

        Args:
            asker: token or address.
            now_s: a clock that is never set (monotonic).

        Returns:
            0.0 when it may pass; else in how many seconds one may, and nothing was counted.
        """
        bucket = self._buckets.get(asker)
        if bucket is None:
            while len(self._buckets) >= self._askers:
                self._buckets.popitem(last=False)
            bucket = self._buckets[asker] = _Bucket(self._burst, now_s)
        else:
            self._buckets.move_to_end(asker)
            grown = max(0.0, now_s - bucket.at_s) * self._per_s
            bucket.filled = min(self._burst, bucket.filled + grown)
            bucket.at_s = now_s
        if bucket.filled < 1.0:
            return (1.0 - bucket.filled) / self._per_s
        bucket.filled -= 1.0
        return 0.0


def address_of(host: str) -> str:
    """What an address is counted as: IPv4 itself, of IPv6 its /64, for a household has one."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
