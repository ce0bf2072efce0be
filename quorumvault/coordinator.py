"""Drives rounds over the replicas on behalf of requests. (Interface; body follows.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from quorumvault.model import Owner


class Missing(Enum):
    """Why a token has no value: the words of the contract."""

    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    COLLISION = "collision"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """``tokens`` in the order of the values; None where two values met in one token (rule 10)."""

    epoch: int
    tokens: list[str | None] = field(repr=False)


class Vault(Protocol):
    """What the API needs. All raise NoQuorum; canonical forms are those of crypto/canonical.py."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized: ...

    async def detokenize(self, owner: Owner, tokens: Sequence[str]) -> list[bytes | Missing]:
        """Canonical forms in the order of the tokens, which may be any text."""
        ...

    async def epoch(self, owner: Owner) -> int: ...

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        """The active epoch afterwards. Raises EpochAhead."""
        ...
