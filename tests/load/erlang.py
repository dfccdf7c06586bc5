"""Agner Krarup Erlang's formulas for how many lines and servers are enough: pure.

A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in
automatic telephone exchanges" (1917); as in ITU-T E.501 and any book on teletraffic. Traffic is in
erlang: calls in the busy hour times their mean length in hours.
"""

from __future__ import annotations

import math


def erlang_b(servers: int, traffic: float) -> float:
    """Share of calls that find all servers taken, where such a call is lost (M/M/n/n)."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = traffic * blocked / (n + traffic * blocked)
    return blocked


def erlang_c(servers: int, traffic: float) -> float:
    """Probability of having to wait, where all wait (M/M/n); 1 from saturation on."""
    if traffic >= servers:
        return 1.0
    blocked = erlang_b(servers, traffic)
    return blocked / (1 - traffic / servers * (1 - blocked))


def waits_longer(servers: int, traffic: float, service_s: float, than_s: float) -> float:
    """Probability of waiting longer than this (M/M/n, first come, first served)."""
    if traffic >= servers:
        return 1.0
    return erlang_c(servers, traffic) * math.exp(-(servers - traffic) * than_s / service_s)


def servers_for_loss(traffic: float, loss: float) -> int:
    """The fewest servers that lose at most this share of calls (Erlang B)."""
    n, blocked = 0, 1.0
    while blocked > loss:
        n += 1
        blocked = traffic * blocked / (n + traffic * blocked)
    return n
