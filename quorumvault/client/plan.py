"""The effects that the pure core asks of the shell around it, and their results.

An operation is a *plan*: a generator that yields effects, is sent the result of each, and returns the operation's result.

    Send   one HTTP request to one node      -> Reply, or NoReply
    Pause  a wait, in seconds                -> None

A plan is given its clock and its random numbers as arguments. It never waits and never touches a socket. Two shells run the same
plans: client/sync.py blocks, client/asynchronous.py awaits.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias, TypeVar

from quorumvault.errors import Asked

#: Every request carries this header, and its answer carries the same id.
REQUEST_ID = "X-Request-ID"
#: Seconds of a monotonic clock.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the API, to any node. ``writes``: its outcome can be unknown. ``media``: the type of the body.

    ``items``: the number of items. A request of many items without an answer in time is not sent again as it is.
    """

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    needs_key: bool = True
    writes: bool = False
    media: str = "application/json"
    items: int = 1


@dataclass(frozen=True, slots=True)
class Send:
    """One request to one node. ``until``: when the reply must be complete.

    ``silence``: most seconds until the reply's head is complete, and after that without a byte.
    """

    url: str
    method: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    silence: float
    until: float


class Pause(NamedTuple):
    """A wait, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with the request's id. An error without an id is not a node's: only its status is kept, not its body."""

    status: int
    retry_after: float | None
    body: bytes = field(repr=False)


class Failure(Enum):
    """The reason why there is no reply."""

    REFUSED = "no connection"
    SILENT = "no answer in time"
    BROKEN = "the connection broke"
    OVERLONG = "the answer is too long"
    FOREIGN = "the answer to another request"


class NoReply(NamedTuple):
    """A request without a reply. ``detail`` is the network library's text: addresses and system errors, no values."""

    failure: Failure
    detail: str


class FailedTry(NamedTuple):
    """A failed try that a retry may make good. ``number`` counts the tries of its request from 1."""

    call: Call
    asked: Asked
    number: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Success:
    """The body of a successful answer, with the tries and the request id for errors about it."""

    body: bytes = field(repr=False)
    asked: tuple[Asked, ...]
    request_id: str


Effect: TypeAlias = Send | Pause
EffectResult: TypeAlias = Reply | NoReply | None
ResultT = TypeVar("ResultT")
Plan: TypeAlias = Generator[Effect, EffectResult, ResultT]


def exchange(send: Send) -> Plan[Reply | NoReply]:
    """Yields one Send. Returns its result, with a narrower type."""
    outcome = yield send
    if outcome is None:
        raise TypeError("a shell answers Send with a Reply or a NoReply")
    return outcome
