"""What is said over HTTP, as types: read and written by the load client, and by the floor, which is given the same requests."""

from __future__ import annotations

import msgspec


class Values(msgspec.Struct):
    """POST /tokenize."""

    values: list[str]


class TokensGiven(msgspec.Struct):
    """Its answer."""

    epoch: int
    tokens: list[str]


class TokenAsked(msgspec.Struct):
    """POST /detokenize, for one token."""

    token: str


class TokensAsked(msgspec.Struct):
    """POST /detokenize."""

    tokens: list[str]


class Result(msgspec.Struct, gc=False):
    status: str
    value: str | None = None


class Results(msgspec.Struct):
    """Its answer."""

    results: list[Result]
    found: int
    not_found: int
