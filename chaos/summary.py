"""The figures of a run, which are written to summary.json. Times are seconds since the run began."""

from enum import StrEnum

import msgspec

#: The share of requests through the two other nodes that is to succeed, and from how many seconds after a fault began.
SERVED_AIM, NOTICED_SECONDS = 0.999, 1.0
#: The most seconds after a fault's end until all is as before.
RECOVERY_AIM = 5.0


class Verdict(StrEnum):
    """``UNKNOWN``: nothing wrong was seen, and not enough was seen to say that nothing is."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Broken(msgspec.Struct, frozen=True):
    """A rule that the history breaks, at operation ``op``; ``ops`` are the operations to show for it, in their order."""

    rule: str
    detail: str
    op: int
    ops: tuple[int, ...]


class Share(msgspec.Struct, frozen=True):
    """Requests that were sent, and those of them that were answered as they should be."""

    asked: int
    ok: int


class Operation(msgspec.Struct, frozen=True):
    """Seconds are of those that were ok, None if there were none. ``items`` are values and tokens in requests that were ok."""

    asked: int
    ok: int
    fail: int
    unknown: int
    items: int
    p50: float | None
    p99: float | None
    slowest: float | None


class Series(msgspec.Struct, frozen=True):
    """The figures of one operation, by bucket."""

    asked: tuple[int, ...]
    ok: tuple[int, ...]
    p50: tuple[float | None, ...]
    p99: tuple[float | None, ...]


class Through(msgspec.Struct, frozen=True):
    """Requests through one node, by bucket."""

    asked: tuple[int, ...]
    ok: tuple[int, ...]


class FaultSeen(msgspec.Struct, frozen=True):
    """A fault and what requests met.

    ``others``: requests through nodes that it is not on, from NOTICED_SECONDS after its begin to its end. ``alone``: no other
    fault was there at the same time. ``back_seconds``: from its end until requests through its nodes succeeded again, None if
    they did not before something else happened. ``calm_seconds``: from its end to the begin of the last request that failed
    before the next fault.
    """

    number: int
    kind: str
    nodes: tuple[str, ...]
    began: float
    ended: float
    words: str
    alone: bool
    others: Share
    back_seconds: float | None
    calm_seconds: float | None


class Aims(msgspec.Struct, frozen=True):
    """One node down, stopped or cut off, and no other fault: over all of these together."""

    served: Share
    served_aim: float
    recovery_worst: float | None
    recovery_median: float | None
    recovery_aim: float


class FinalReads(msgspec.Struct, frozen=True):
    """``tokens`` known at the end, ``reads`` of one each, through ``ways``: a node, with all three or two of them up."""

    tokens: int
    reads: int
    ways: tuple[str, ...]


NOTHING_READ = FinalReads(0, 0, ())


class Exit(msgspec.Struct, frozen=True):
    """A process that ended by itself. ``expected``: something was done to its disk for which that is the right answer."""

    node: str
    at: float
    code: int
    expected: bool
    words: str


class Summary(msgspec.Struct, frozen=True):
    """``series`` and ``availability`` are by buckets of ``bucket_seconds`` from the run's begin, by the time of the invoke."""

    verdict: Verdict
    reasons: tuple[str, ...]
    violation: Broken | None
    seed: int
    profile: str
    started: str
    seconds: float
    net: str
    command: tuple[str, ...]
    version: str
    bucket_seconds: float
    operations: dict[str, Operation]
    series: dict[str, Series]
    availability: dict[str, Through]
    faults: tuple[FaultSeen, ...]
    fault_counts: dict[str, int]
    unavailable: dict[str, str]
    aims: Aims
    final: FinalReads
    exits: tuple[Exit, ...]
