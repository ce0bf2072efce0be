"""What is known of one text: the statuses of the API, and those of values that are not sent since no node would take them."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Status: TypeAlias = Literal[
    "null",  # there was no text
    "ok",  # there is something to take its place
    "not_found",
    "not_token",  # text of another form, which is not sent to be looked up
    "unavailable",
    "collision",
    "already_token",
    "too_large",
    "not_tokenizable",
]
STATUSES: Final[tuple[Status, ...]] = (
    *("null", "ok", "not_found", "not_token", "unavailable", "collision"),
    *("already_token", "too_large", "not_tokenizable"),
)
#: Values that cannot be tokenized: why, in words for whom it stops.
FAULTS: Final[dict[Status, str]] = {
    "already_token": "there is a token already; --if-token keep leaves tokens as they are",
    "too_large": "the value is larger than a node takes",
    "not_tokenizable": "a number with a fraction, an object or an array is no value to tokenize: make it a string",
}
#: What the list of rejects says of a cell: codes of the API where it has one.
CODES: Final[dict[Status, str]] = {
    "not_found": "not-found",
    "unavailable": "unavailable",
    "collision": "token-collision",
    "already_token": "already-tokenized",
    "too_large": "value-too-large",
    "not_tokenizable": "not-tokenizable",
}
#: The statuses behind those codes.
OF_CODES: Final[dict[str, Status]] = {code: status for status, code in CODES.items()}
MOVED_WORDS: Final = "the epoch was rotated each time that a part was made: go on with --resume when that is over"
NOT_FOUND_WORDS: Final = "no value of yours has this token"
