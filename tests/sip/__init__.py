"""Peers that lie or break: sipp scenarios against a half node."""
