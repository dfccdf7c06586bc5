"""Callshield beside a real Asterisk: ``./run test-pbx`` makes the Asterisk and runs these tests."""
