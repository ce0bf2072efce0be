"""The vault's operations, as the API has them: the interface of a coordinator that server/http needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from quorumvault.model import Owner


class Missing(Enum):
    """The reason why a token has no value, in the words of the HTTP API."""

    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    COLLISION = "collision"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """``tokens`` in the order of the values; None if two values met in one token (rule: a conflict never overwrites)."""

    epoch: int
    tokens: list[str | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Retokenized:
    """``tokens`` of one epoch, in the order of the tokens that they replace; or why a token has no replacement."""

    epoch: int
    tokens: list[str | Missing] = field(repr=False)


#: Called for each part of a read with the size of its records in bytes. Raises RequestError if there is no room for them.
Take: TypeAlias = Callable[[int], None]


class Vault(Protocol):
    """The operations; all raise NoQuorum. Canonical forms are those of crypto/canonical.py."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized: ...

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes | Missing]:
        """Canonical forms in the order of the tokens, which may be any text. Repeats of a token share one object."""

    async def retokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> Retokenized:
        """The tokens of the same values in the active epoch. A token of that epoch is returned unchanged."""

    async def epoch(self, owner: Owner) -> int: ...

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        """For each value its tokens in epochs 1 to ``last``, issued or not. Asks no replica."""

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        """Rotate from this epoch. Returns the active epoch afterwards. Raises EpochAhead."""
