"""Turns values into bytes and bytes into tokens, and seals values: pure functions of a master secret (docs/token-format.md)."""
