"""The steps that the pure core asks of the shell around it, and the outcomes that it gets back.

An operation is a *plan*: a generator that yields steps and is sent what came of each, and returns the operation's result.

    Send   one HTTP request to one node      -> Reply, or NoReply
    Pause  seconds in which nothing is done  -> None

The plan reads the clock and draws random numbers through what it was given; it never waits and never touches a socket. Two
shells run the same plans: client/sync.py blocks, client/asynchronous.py awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias, TypeVar

from quorumvault.errors import Asked

#: Every request carries one, and its answer the same.
REQUEST_ID = "X-Request-ID"
#: Seconds of a monotonic clock.
Clock = Callable[[], float]


class Call(NamedTuple):
    """A request as the API has it, whichever node it goes to. ``writes``: its outcome can be unknown. ``media``: of the body."""

    method: str
    path: str
    body: bytes | None = None
    needs_key: bool = True
    writes: bool = False
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Send:
    """``silence`` bounds each wait for the node to do something; ``until`` is when the reply must have ended."""

    url: str
    method: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    silence: float
    until: float


class Pause(NamedTuple):
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to this request, going by its id. An error without an id is not a node's: its status is kept, and not its body."""

    status: int
    retry_after: float | None
    body: bytes = field(repr=False)


class Failure(Enum):
    """Why there is no reply."""

    REFUSED = "no connection"
    SILENT = "no answer in time"
    BROKEN = "the connection broke"
    OVERLONG = "the answer is too long"
    FOREIGN = "the answer to another request"


class NoReply(NamedTuple):
    """``detail`` is the network library's account, which knows addresses and system errors, and no values."""

    failure: Failure
    detail: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A success, and how it was come by, for whoever finds that it can't be read."""

    body: bytes = field(repr=False)
    asked: tuple[Asked, ...]
    request_id: str


Step: TypeAlias = Send | Pause
Outcome: TypeAlias = Reply | NoReply | None
ResultT = TypeVar("ResultT")
Plan: TypeAlias = Generator[Step, Outcome, ResultT]


def exchange(send: Send) -> Plan[Reply | NoReply]:
    """Yields one Send, and narrows the type of what comes of it."""
    outcome = yield send
    if outcome is None:
        raise TypeError("a shell answers Send with a Reply or a NoReply")
    return outcome
