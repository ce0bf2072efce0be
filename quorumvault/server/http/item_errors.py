"""What can be wrong with one item of a request, and what becomes of the request then."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from quorumvault.config.cluster import Limits
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

#: What can be wrong with an item, by its code.
REFUSALS: dict[str, type[RequestError]] = {
    kind.code: kind for kind in (Invalid, NotTokenizable, AlreadyTokenized, ValueTooLarge, TokenCollision)
}
#: The canonical form of a string that starts like a token; whether it is one takes longer to say.
_LIKE_A_TOKEN = b"sqv_"


def unfit(canonicals: Sequence[bytes | None], limits: Limits) -> list[tuple[int, RequestError]]:
    """Positions of canonical forms that are not to be tokenized, in order, and why not."""
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
    """Why this JSON value has no canonical form."""
    if raw.startswith((b"{", b"[")):
        return NotTokenizable("an object or an array is no value; name a field inside it, or send text")
    return NotTokenizable("a number with a fraction or an exponent has no one spelling in JSON; send it as a string")


def item_error(index: int, error: RequestError, path: str | None = None) -> ItemError:
    return ItemError(index, error.code, error.detail, path)


def collision(index: int, path: str | None = None) -> ItemError:
    """Rule 10: neither of the two values is overwritten."""
    return item_error(index, TokenCollision("another value has the token that this one would get, in this epoch"), path)


def in_order(bad: Sequence[ItemError]) -> list[ItemError]:
    """By index; within one record as they were found."""
    return sorted(bad, key=attrgetter("index"))


def refuse_any(bad: Sequence[ItemError], limits: Limits) -> None:
    """Raises the error of a whole request if it has a bad item. If they are of several kinds: the first one's code and status."""
    if not bad:
        return
    listed = tuple(in_order(bad)[: limits.errors_listed])
    first, more = listed[0], len(bad) - len(listed)
    rest = f" ({more} faults are not listed)" if more else ""
    raise REFUSALS[first.code](f"item {first.index}: {first.detail}; nothing is returned{rest}", errors=listed)


def require_count(count: int, most: int, what: str) -> None:
    """Raises TooManyItems."""
    if count > most:
        raise TooManyItems(f"a request has at most {most} {what} here (GET /limits); send them in several requests")
