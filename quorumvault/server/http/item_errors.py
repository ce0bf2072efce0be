"""Checks the items of a request: derives their canonical forms, collects their errors, and decides whether the request goes on.

By default one bad item makes the node refuse the request (422) and list all bad items. With on_error "item", bad items are null
in the answer.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from quorumvault.config.limits import Limits
from quorumvault.crypto.canonical import from_json, from_str
from quorumvault.crypto.tokens import is_token
from quorumvault.errors import (
    AlreadyTokenized,
    Invalid,
    ItemError,
    NotTokenizable,
    RequestError,
    TokenCollision,
    TooManyItems,
    ValueTooLarge,
)

#: The errors that an item can have, by their codes.
ITEM_ERRORS: Final[dict[str, type[RequestError]]] = {
    kind.code: kind for kind in (Invalid, NotTokenizable, AlreadyTokenized, ValueTooLarge, TokenCollision)
}
#: The beginning of a token in canonical form. Checking whether a text with this beginning is a token takes longer.
_LIKE_A_TOKEN: Final = b"sqv_"
_NULL: Final = b"null"
#: The later of two values gets no token (rule: a conflict never overwrites).
COLLISION: Final = TokenCollision("another value has the token that this one would get, in this epoch")

ItemCode = Annotated[str, Meta(extra_json_schema={"enum": sorted(ITEM_ERRORS)})]


class ItemProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one item. ``path`` is present only for records, ``detail`` only in a problem."""

    index: int
    code: ItemCode
    path: str | None = None
    detail: str | None = None


class ItemErrors:
    """The items of one request that cannot be tokenized. ``lenient``: the answer lists them; else one refuses the request."""

    def __init__(self, limits: Limits, lenient: bool = False) -> None:
        self.limits = limits
        self.found: list[ItemError] = []
        self._lenient = lenient

    def add(self, index: int, error: RequestError, path: str | None = None) -> None:
        self.found.append(ItemError(index, error.code, error.detail, path))

    def refuse_unless_lenient(self) -> None:
        """Raises the error of the whole request if it is not lenient and an item is bad: with the first one's code and status."""
        if not self.found or self._lenient:
            return
        listed = tuple(self._in_order()[: self.limits.errors_listed])
        first, more = listed[0], len(self.found) - len(listed)
        rest = f" ({more} faults are not listed)" if more else ""
        raise ITEM_ERRORS[first.code](f"item {first.index}: {first.detail}; nothing is returned{rest}", errors=listed)

    @property
    def listed(self) -> list[ItemProblem] | UnsetType:
        """The list for a lenient request's answer, by index; unset for any other."""
        return [ItemProblem(error.index, error.code, error.path) for error in self._in_order()] if self._lenient else UNSET

    def _in_order(self) -> list[ItemError]:
        """Return the errors by index; within one record as they were found."""
        return sorted(self.found, key=attrgetter("index"))


def judge_texts(texts: Sequence[str | None], errors: ItemErrors) -> list[bytes | None]:
    """Like ``judge_values``, for values that are all texts or null."""
    require_count(len(texts), errors.limits.items, "values")
    return _judge([None if text is None else from_str(text) for text in texts], errors)


def judge_values(values: Sequence[Raw], errors: ItemErrors) -> list[bytes | None]:
    """Return the canonical form of each value, as JSON spells it; None for a null, and for a bad one, which ``errors`` gets.

    Raises TooManyItems, and refuses a request that is not lenient.
    """
    require_count(len(values), errors.limits.items, "values")
    raws = [bytes(value) for value in values]
    canonicals = [from_json(raw) for raw in raws]
    for index, (raw, canonical) in enumerate(zip(raws, canonicals, strict=True)):
        if canonical is None and raw != _NULL:
            errors.add(index, not_tokenizable(raw))
    return _judge(canonicals, errors)


def _judge(canonicals: list[bytes | None], errors: ItemErrors) -> list[bytes | None]:
    for index, error in unfit(canonicals, errors.limits):
        canonicals[index] = None
        errors.add(index, error)
    errors.refuse_unless_lenient()
    return canonicals


def unfit(canonicals: Sequence[bytes | None], limits: Limits) -> list[tuple[int, RequestError]]:
    """Return the positions of canonical forms that must not be tokenized, in order, each with the reason."""
    longest = limits.value_bytes + 1
    suspects = [
        position
        for position, canonical in enumerate(canonicals)
        if canonical is not None and (len(canonical) > longest or canonical.startswith(_LIKE_A_TOKEN))
    ]
    found: list[tuple[int, RequestError]] = []
    for position in suspects:
        canonical = canonicals[position] or b""
        if len(canonical) > longest:
            found.append((position, ValueTooLarge(f"a value has at most {limits.value_bytes} bytes here (GET /limits)")))
        elif is_token(canonical[1:].decode()):
            found.append((position, AlreadyTokenized("it already is a token, and a token is not tokenized again")))
    return found


def not_tokenizable(raw: bytes) -> NotTokenizable:
    """Return the reason why this JSON value has no canonical form."""
    if raw.startswith((b"{", b"[")):
        return NotTokenizable("an object or an array is no value; name a field inside it, or send text")
    return NotTokenizable("a number with a fraction or an exponent has no one spelling in JSON; send it as a string")


def require_count(count: int, most: int, what: str) -> None:
    """Raises TooManyItems for more than ``most``."""
    if count > most:
        raise TooManyItems(f"a request has at most {most} {what} here (GET /limits); send them in several requests")
