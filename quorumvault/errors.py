"""One tree of errors. Each class has its HTTP status, its code in the contract, and whether repeating the request can help.

No message, here or at a call site, may contain a value, an API key or a whole token: name the place (index, path, file, key).
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

WriteOutcome = Literal["none", "unknown"]

#: Most different tries that an error message lists: a client may have made dozens.
_TRIES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class ItemError:
    """A fault of one item of a batch: its index, its concrete path within a record (or None), a code, words."""

    index: int
    code: str
    detail: str
    path: str | None = None


class Asked(NamedTuple):
    """One try of a client: the node's URL, and the outcome in a few words."""

    node: str
    outcome: str


def _tries(asked: tuple[Asked, ...]) -> str:
    """Lists tries. Equal outcomes at one node are listed once, with their number."""
    times = Counter(asked)
    last = list(times)[-_TRIES_SHOWN:]
    return "; ".join(f"{each.node}: {each.outcome}" + (f" ({times[each]} times)" if times[each] > 1 else "") for each in last)


class QuorumVaultError(Exception):
    """The base of every failure that is answered over HTTP, or shown to an operator."""

    #: True if sending the same request again, later or to another node, can help.
    retryable: ClassVar[bool] = False
    #: Set by the client: its tries in order, and the id under which the event logs of those nodes have the request.
    asked: tuple[Asked, ...] = ()
    request_id: str | None = None
    #: Why the client made no further try, if there would have been a reason for one.
    gave_up: str | None = None

    def __str__(self) -> str:
        words = super().__str__()
        if self.asked:
            words += f" [{_tries(self.asked)}]"
            words += f" [sending it again {'may' if self.retryable else 'does not'} help]"
        if self.gave_up:
            words += f" [{self.gave_up}]"
        if self.request_id:
            words += f" [request {self.request_id}]"
        return words

    def _render_traceback_(self) -> list[str]:
        """The traceback that IPython, and so a notebook, shows: frames of this package would not help its reader."""
        return [f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the whole error, whatever its constructor takes, so that an error in a pool's worker reaches the caller."""
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[QuorumVaultError], words: tuple[object, ...], told: dict[str, object]) -> QuorumVaultError:
    error = kind.__new__(kind, *words)
    error.__dict__.update(told)
    return error


class RequestError(QuorumVaultError):
    """A failure with a place in the contract's error table (RFC 9457 problem details)."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    #: Seconds for ``Retry-After``, if the contract asks for that header.
    retry_after: int | None = None
    #: For writes that are refused or fail: whether any node may have stored something. Unknown is an outcome.
    outcome: WriteOutcome | None

    def __init__(self, detail: str, *, errors: tuple[ItemError, ...] = (), outcome: WriteOutcome | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.outcome = outcome


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

    def __init__(self, detail: str | None = None, *, active_epoch: int) -> None:
        super().__init__(detail or f"the active epoch is {active_epoch}: rotate from that one")
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
    status, code, title, retryable = 429, "rate-limited", "This key's rate is used up", True

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Internal(RequestError):
    """A bug in this program: the answer to every unforeseen exception."""

    status, code, title = 500, "internal", "Something went wrong in this node"


class NoQuorum(RequestError):
    """Fewer than two replicas could decide in time. For writes ``outcome`` is ``none`` or ``unknown``."""

    status, code, title, retryable, retry_after = 503, "no-quorum", "No quorum of nodes answered", True, 1


class Unreachable(NoQuorum):
    """Raised by the client: no node gave any answer. Not in the contract's table, because no node sends it."""

    title = "No node answered"

    def __init__(
        self,
        detail: str = "no node answered: do they run, and are these their URLs?",
        *,
        errors: tuple[ItemError, ...] = (),
        outcome: WriteOutcome | None = None,
    ) -> None:
        super().__init__(detail, errors=errors, outcome=outcome)


class Draining(RequestError):
    status, code, title, retryable, retry_after = 503, "draining", "This node is about to stop", True, 1


class ConfigError(QuorumVaultError):
    """One line for an operator: which file, which key, what was expected. Ends a node with exit 1."""

    def __init__(self, where: object, key: str, expected: str) -> None:
        super().__init__(f"{where}: {key}: {expected}" if key else f"{where}: {expected}")


class Unavailable(ConfigError):
    """Something that a node needs was not there in time: a secret, an address. A restart may help. Ends a node with exit 4."""


class BadArgument(ConfigError):
    """An argument of the client cannot be used. On the command line, the argument is the option of that name."""

    def __init__(self, argument: str, expected: str) -> None:
        super().__init__(argument, "", expected)


class DirectoryInUse(ConfigError):
    """Another process owns the data directory."""


class Refused(QuorumVaultError):
    """A command refuses to do what it was asked for. The text says why, and what can be done instead."""


class NotRunning(QuorumVaultError):
    """No process answers at the administrative socket of a node."""


class RunsElsewhere(QuorumVaultError):
    """A peer talks to another live process under this node's name: two must not vote as one. Ends a node with exit 1."""


class DiskReplaced(QuorumVaultError):
    """A peer's view lists another disk in this node's slot: this disk must not vote again. The node ends with exit 1."""


class BackupDamaged(QuorumVaultError):
    """A backup is damaged or incomplete. The text says which backup, where in it, and what is wrong there."""


class StorageFailed(QuorumVaultError):
    """A distrusted store stops: the process ends with exit 3 before it acknowledges anything else."""


class StoreCorrupt(StorageFailed):
    """The store does not hold what was written: the disk must be replaced and filled from the other disks' copies."""


class StoreMissing(StorageFailed):
    """The disk's identity names a store that does not exist: everything that the disk acknowledged is lost with it."""


class NoRoom(StorageFailed):
    """The store cannot be opened or written on a full disk. Nothing is lost; the next start finds the store as it was."""


class UnexpectedAnswer(QuorumVaultError):
    """Raised by the client: the answer does not conform to the API. It may come from a proxy, or another service."""


class TokensNotFound(QuorumVaultError):
    """Raised by the client on request: some tokens have no value. ``indexes`` are their places, one for each occurrence.

    For a table's ``column`` they are rows, counted from 0, and only the first few of ``count``.
    """

    def __init__(self, indexes: tuple[int, ...], asked_for: int, *, count: int | None = None, column: str | None = None) -> None:
        self.indexes = indexes
        self.count = len(indexes) if count is None else count
        self.column = column
        first = ", ".join(map(str, indexes[:5])) + (", …" if self.count > 5 else "")
        where = f"at index {first}" if column is None else f"column {column}, rows {first}"
        super().__init__(f"{self.count} of {asked_for} tokens have no value here, {where}")


class EpochMoved(QuorumVaultError):
    """Raised by the client: the epoch was rotated again and again while one call of many requests was under way."""

    retryable = True

    def __init__(self, words: str = "the epoch was rotated each time that a part of this was done: try again when that is over"):
        super().__init__(words)


class IntegerTooLong(QuorumVaultError):
    """Raised by the client: Python refuses to convert an integer of so many digits. Its JSON text is still available."""


class NotText(QuorumVaultError):
    """Raised by a SQL function: the value exists, but is not text."""


class ColumnError(QuorumVaultError):
    """A column of a table cannot be processed. The text says which column, what is wrong with it, and what to do."""


class InputError(QuorumVaultError):
    """A file cannot be processed as it is. The text says which file, which line, and what is wrong there."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        self.line = line
        super().__init__(f"{source}: line {line}: {problem}")
