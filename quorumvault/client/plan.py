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

#: Every request carries one, and its answer the same.
REQUEST_ID = "X-Request-ID"
#: Seconds of a monotonic clock.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the API, to any node. ``writes``: its outcome can be unknown. ``media``: the type of the body.

    ``items``: how many it asks for. A request for many that is not answered in time is not sent again as it is.
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
    """One request to one node. ``silence``: most seconds without a byte from it. ``until``: when the reply must have ended."""

    url: str
    method: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    silence: float
    until: float


class Pause(NamedTuple):
    """Seconds in which nothing is done."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to this request, going by its id. An error without an id is not a node's: its status is kept, and not its body."""

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
    """A try that another one may make good. ``number`` counts the tries of its request from 1."""

    call: Call
    asked: Asked
    number: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Success:
    """The body of a success, with the tries and the request id for an error about it."""

    body: bytes = field(repr=False)
    asked: tuple[Asked, ...]
    request_id: str


Effect: TypeAlias = Send | Pause
EffectResult: TypeAlias = Reply | NoReply | None
ResultT = TypeVar("ResultT")
Plan: TypeAlias = Generator[Effect, EffectResult, ResultT]


def exchange(send: Send) -> Plan[Reply | NoReply]:
    """Yields one Send. Returns its result, whose type it narrows."""
    outcome = yield send
    if outcome is None:
        raise TypeError("a shell answers Send with a Reply or a NoReply")
    return outcome
