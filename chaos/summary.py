"""The figures of a run, as written to summary.json. Times are in seconds since the run began."""

from enum import StrEnum

import msgspec

#: The share of requests through the two other nodes that is to succeed, and from how many seconds after a fault began.
SERVED_AIM, NOTICED_SECONDS = 0.999, 1.0
#: That of the interval in which that share lies: a run in a hundred is judged wrongly if each of its requests is left to chance.
CONFIDENCE = 0.99
#: The most seconds after a fault's end until requests are answered as before.
RECOVERY_AIM = 5.0
#: The most seconds after a fault's end until no disk joins and none lacks anything. One that has lost something asks the others
#: for it after ``timeouts.request`` (10 s), when no request of before is under way any more; a new one copies everything.
MENDING_AIM = 30.0
#: The most seconds after that, or after the fault's end, until all three replicas hold the same. A comparison is due
#: ``timeouts.round`` (2 s) after a link is back, and soon done; one that fails is made again after 10 s, and is late.
CONVERGENCE_AIM = 10.0


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
    """A fault and what requests met. None where it was not seen before something else happened.

    ``alone``: no other fault was there at the same time, and what the one before had begun was over. ``others``: requests through
    nodes that it is not on, from NOTICED_SECONDS after its begin to its end; ``quiet``: those of them that were made and answered
    while the machine was not busy with other things. ``back_seconds``: from its end until requests through its nodes succeeded
    again. ``calm_seconds``: from its end to the begin of the last request that failed of what this fault began: before the next
    fault, later but through a node that was not back yet, or when it had waited long before the next fault came.
    ``mended_seconds``: from its end until no disk joined and none had lost anything any more, 0 if that was so at once.
    ``converged_seconds``: from its end until all three replicas were the same; ``watched_seconds``: from its end as long as that
    could be looked at. ``late``: the worst lateness of the control probe meanwhile, None without a probe. ``busy``: the machine
    was, at some time from its end until what it began was over.
    """

    number: int
    kind: str
    nodes: tuple[str, ...]
    began: float
    ended: float
    words: str
    alone: bool
    others: Share
    quiet: Share
    back_seconds: float | None
    calm_seconds: float | None
    mended_seconds: float
    converged_seconds: float | None
    watched_seconds: float
    late: float | None
    busy: bool

    @property
    def judged(self) -> bool:
        """Whether the promise covers it: one node at most cannot serve, and nothing else is wrong."""
        return self.alone and len(self.nodes) <= 1

    @property
    def same_seconds(self) -> float | None:
        """From when all disks were whole again, after its end, until all three replicas were the same."""
        return None if self.converged_seconds is None else max(0.0, self.converged_seconds - self.mended_seconds)

    @property
    def recovered_seconds(self) -> float | None:
        """From its end until requests were answered as before: as far as that was seen, if it was beyond the aim by then."""
        if self.calm_seconds is None or (self.nodes and self.back_seconds is None and self.calm_seconds <= RECOVERY_AIM):
            return None
        return max(self.calm_seconds, self.back_seconds or 0.0)


class Spread(msgspec.Struct, frozen=True):
    """A range of figures: of so many the least, the median and the most."""

    count: int
    least: float
    median: float
    most: float


class Aims(msgspec.Struct, frozen=True):
    """``served``: requests through the others, of all faults that were alone and on one node at most; ``quiet``: see FaultSeen.

    ``between``: with CONFIDENCE the share that is served on a quiet machine lies there. ``recovery`` is over the same faults;
    ``convergence`` over all after which no other came too soon to see it: there were ``overtaken`` others. It begins when all
    disks are whole; ``mending`` is over those before.
    """

    served: Share
    quiet: Share
    between: tuple[float, float]
    served_aim: float
    recovery: Spread | None
    recovery_aim: float
    mending: Spread | None
    mending_aim: float
    convergence: Spread | None
    convergence_aim: float
    overtaken: int
    #: By kind, of the faults that were alone.
    convergence_by_kind: dict[str, Spread]


class Load(msgspec.Struct, frozen=True):
    """The machine while faults came and went, as a control probe saw it second by second (history.Machine).

    ``busy`` of the seconds it was too busy to judge a node by its times.
    """

    busy: int
    late: Spread
    sync: Spread
    ours: Spread
    others: Spread
    load: Spread


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
    """``series`` and ``availability`` are by buckets of ``bucket_seconds`` from the run's begin, by the time of the invoke.

    ``too_busy``: the verdict is unknown, and for no other reason than that the machine was busy with other things.
    """

    verdict: Verdict
    too_busy: bool
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
    machine: Load | None
    final: FinalReads
    exits: tuple[Exit, ...]
