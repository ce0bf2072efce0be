"""One tree of errors. Each class knows its HTTP status, its code in the contract, and whether sending the same again can help.

No message, here or at a call site, may carry a value, an API key or a whole token: name the place (index, path, file, key).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Outcome = Literal["none", "unknown"]


@dataclass(frozen=True, slots=True)
class ItemError:
    """What is wrong with one item of a batch: its index, the concrete path within a record if it is one, a code, words."""

    index: int
    code: str
    detail: str
    path: str | None = None


class QuorumVaultError(Exception):
    """Any failure that is answered, or told to an operator, in words."""


class RequestError(QuorumVaultError):
    """A failure with a place in the contract's error table (RFC 9457 problem details)."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False
    #: Seconds for ``Retry-After``, where the contract asks for that header.
    retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str, *, errors: tuple[ItemError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class Malformed(RequestError):
    status, code, title = 400, "malformed", "The body cannot be read"


class Unauthenticated(RequestError):
    status, code, title = 401, "unauthenticated", "No valid API key"


class NotPermitted(RequestError):
    status, code, title = 403, "not-permitted", "The key lacks this operation"


class NotFound(RequestError):
    status, code, title = 404, "not-found", "Not found"


class MethodNotAllowed(RequestError):
    status, code, title = 405, "method-not-allowed", "Method not allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class EpochAhead(RequestError):
    status, code, title = 409, "epoch-ahead", "The epoch to rotate from is ahead of the active one"

    def __init__(self, detail: str, *, active_epoch: int) -> None:
        super().__init__(detail)
        self.active_epoch = active_epoch


class TokenCollision(RequestError):
    status, code, title = 409, "token-collision", "Two values met in one token"


class TooLarge(RequestError):
    status, code, title = 413, "too-large", "Too large"


class UnsupportedMediaType(RequestError):
    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class Invalid(RequestError):
    status, code, title = 422, "invalid", "The request does not have the form that is asked for"


class NotTokenizable(RequestError):
    status, code, title = 422, "not-tokenizable", "A value cannot be tokenized"


class AlreadyTokenized(RequestError):
    status, code, title = 422, "already-tokenized", "A value already is a token"


class TooManyItems(RequestError):
    status, code, title = 422, "too-many-items", "Too many items"


class ValueTooLarge(RequestError):
    status, code, title = 422, "value-too-large", "A value is too large"


class Busy(RequestError):
    status, code, title, retryable, retry_after = 429, "busy", "This node's queue is full", True, 1


class RateLimited(RequestError):
    status, code, title, retryable, retry_after = 429, "rate-limited", "This key's rate is used up", True, 1


class NoQuorum(RequestError):
    """Fewer than two replicas could decide in time. ``outcome`` is set for writes: none, or unknown (rule 12)."""

    status, code, title, retryable, retry_after = 503, "no-quorum", "No quorum of nodes answered", True, 1

    def __init__(self, detail: str, *, outcome: Outcome | None = None) -> None:
        super().__init__(detail)
        self.outcome = outcome


class Draining(RequestError):
    status, code, title, retryable, retry_after = 503, "draining", "This node is about to stop", True, 1


class ConfigError(QuorumVaultError):
    """One line for an operator: which file, which key, what was expected. Ends a node with exit 1."""

    def __init__(self, where: object, key: str, expected: str) -> None:
        super().__init__(f"{where}: {key}: {expected}" if key else f"{where}: {expected}")


class StorageFailed(QuorumVaultError):
    """The store cannot be trusted any more: the process ends with exit 3 before anything else is acknowledged (rule 11)."""
