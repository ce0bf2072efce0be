"""A request's values, judged: their canonical forms, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Raw

from quorumvault.config.cluster import Limits
from quorumvault.crypto.canonical import from_json, from_str
from quorumvault.errors import ItemError
from quorumvault.server.http import item_errors

_NULL = b"null"


@dataclass(frozen=True, slots=True, repr=False)
class Values:
    """Canonical forms in the order of the request; None for a null, and for what is bad."""

    canonicals: list[bytes | None]
    bad: list[ItemError]


def judge_texts(texts: Sequence[str | None], limits: Limits) -> Values:
    """Values that are all text, or null. Raises TooManyItems."""
    item_errors.require_count(len(texts), limits.items, "values")
    return _without_unfit([None if text is None else from_str(text) for text in texts], [], limits)


def judge_values(values: Sequence[Raw], limits: Limits) -> Values:
    """Values as they are spelled in JSON. Raises TooManyItems."""
    item_errors.require_count(len(values), limits.items, "values")
    raws = [bytes(value) for value in values]
    canonicals = [from_json(raw) for raw in raws]
    bad = [
        item_errors.item_error(index, item_errors.not_tokenizable(raw))
        for index, (raw, canonical) in enumerate(zip(raws, canonicals, strict=True))
        if canonical is None and raw != _NULL
    ]
    return _without_unfit(canonicals, bad, limits)


def _without_unfit(canonicals: list[bytes | None], bad: list[ItemError], limits: Limits) -> Values:
    for index, error in item_errors.unfit(canonicals, limits):
        canonicals[index] = None
        bad.append(item_errors.item_error(index, error))
    return Values(canonicals, bad)
