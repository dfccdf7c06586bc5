"""Soak, load and sizing: what a whole node does for hours, at its limit, and what it costs.

``./run soak`` and ``./run load`` run it (CONTRIBUTING.md); docs/load.md has the figures.
"""
