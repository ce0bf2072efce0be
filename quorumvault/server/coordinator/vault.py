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
    """``tokens`` in the order of the values; None where two values met in one token (rule: a conflict never overwrites)."""

    epoch: int
    tokens: list[str | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Retokenized:
    """``tokens`` of one epoch, in the order of the tokens that they replace, or why there is none."""

    epoch: int
    tokens: list[str | Missing] = field(repr=False)


#: Called with the bytes of records that were read, part by part. Raises RequestError if there is no room for them.
Take: TypeAlias = Callable[[int], None]


class Vault(Protocol):
    """All raise NoQuorum. Canonical forms are those of crypto/canonical.py."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized: ...

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes | Missing]:
        """Canonical forms in the order of the tokens, which may be any text. Repeats of a token share one object."""

    async def retokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> Retokenized:
        """The tokens that their values have in the active epoch; a token of that epoch comes back itself."""

    async def epoch(self, owner: Owner) -> int: ...

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        """For each value its tokens of epochs 1 to ``last``, issued or not. Asks no replica."""

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        """The active epoch afterwards. Raises EpochAhead."""
