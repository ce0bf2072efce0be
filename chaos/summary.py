"""The figures of a run, as written to summary.json. Times are in seconds since the run began."""

from enum import StrEnum

import msgspec

#: The aim for the share of requests through the two other nodes that succeed, and the seconds after a fault began from which
#: they count.
SERVED_AIM, NOTICED_SECONDS = 0.999, 1.0
#: The confidence of the interval of that share: if requests fail at random, one run in a hundred is judged wrongly.
CONFIDENCE = 0.99
#: The most seconds after a fault's end until requests are answered as before.
RECOVERY_AIM = 5.0
#: The most seconds after a fault's end until no disk joins and none lacks records. A disk that lost records asks the others for
#: them after ``timeouts.request`` (10 s), when no earlier request is under way any more; a new disk copies everything.
MENDING_AIM = 30.0
#: The most seconds after that, or after the fault's end, until all three replicas are identical. A comparison is due
#: ``timeouts.round`` (2 s) after a link is back, and is soon done; a failed comparison is repeated after 10 s, which is late.
CONVERGENCE_AIM = 10.0


class Verdict(StrEnum):
    """The verdict. ``UNKNOWN``: the run saw nothing wrong, but too little to rule it out."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Broken(msgspec.Struct, frozen=True):
    """A rule that the history breaks, at operation ``op``. ``ops``: the operations to show for it, in order."""

    rule: str
    detail: str
    op: int
    ops: tuple[int, ...]


class Share(msgspec.Struct, frozen=True):
    """The number of requests sent, and the number answered correctly."""

    asked: int
    ok: int


class Operation(msgspec.Struct, frozen=True):
    """The figures of one operation. Seconds are of ok requests, None without any; ``items``: values and tokens in ok requests."""

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
    """A fault and its effects on requests. A figure is None if another fault came before it could be seen.

    ``alone``: no other fault was active at the same time, and the effects of the fault before were over. ``others``: requests
    through nodes without this fault, from NOTICED_SECONDS after its beginning to its end; ``quiet``: the requests among them that
    were sent and answered while the machine was not busy with other things. ``back_seconds``: from its end until requests through
    its nodes succeeded again. ``calm_seconds``: from its end to the start of the last request that failed because of this fault:
    before the next fault; or later, through a node that was not back yet; or after a long wait before the next fault came.
    ``mended_seconds``: from its end until no disk joined or lacked lost records any more, 0 if at once. ``converged_seconds``:
    from its end until all three replicas were identical; ``watched_seconds``: from its end as long as that could be observed.
    ``late``: the worst lateness of the control probe meanwhile, None without a probe. ``busy``: whether the machine was busy at
    some time from the fault's end until its effects were over.
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
        """Whether the promise covers this fault: at most one node cannot serve, and nothing else is wrong."""
        return self.alone and len(self.nodes) <= 1

    @property
    def same_seconds(self) -> float | None:
        """Seconds from the time after the fault when all disks were whole until all three replicas were identical."""
        return None if self.converged_seconds is None else max(0.0, self.converged_seconds - self.mended_seconds)

    @property
    def recovered_seconds(self) -> float | None:
        """Seconds from the fault's end until requests were answered as before. If that was not seen: the part seen, if beyond
        the aim; else None."""
        if self.calm_seconds is None or (self.nodes and self.back_seconds is None and self.calm_seconds <= RECOVERY_AIM):
            return None
        return max(self.calm_seconds, self.back_seconds or 0.0)


class Spread(msgspec.Struct, frozen=True):
    """A range of figures: their number, the least, the median and the most."""

    count: int
    least: float
    median: float
    most: float


class Aims(msgspec.Struct, frozen=True):
    """``served``: requests through the other nodes, over all faults alone and on at most one node; ``quiet``: see FaultSeen.

    ``between``: the interval in which, with CONFIDENCE, the share served on a quiet machine lies. ``recovery`` covers the same
    faults. ``convergence`` covers all faults after which no other came too soon to see it; ``overtaken`` counts the rest. It is
    measured from the time when all disks are whole; ``mending`` covers the time before.
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
    #: By kind, over the faults that were alone.
    convergence_by_kind: dict[str, Spread]


class Load(msgspec.Struct, frozen=True):
    """The machine during the faults, as a control probe saw it second by second (history.Machine).

    ``busy``: the number of seconds in which the machine was too busy to judge a node by its times.
    """

    busy: int
    late: Spread
    sync: Spread
    ours: Spread
    others: Spread
    load: Spread


class FinalReads(msgspec.Struct, frozen=True):
    """``tokens`` known at the end, ``reads`` of one token each, over ``ways``: through a node, with three or two nodes up."""

    tokens: int
    reads: int
    ways: tuple[str, ...]


NOTHING_READ = FinalReads(0, 0, ())


class Exit(msgspec.Struct, frozen=True):
    """A process that ended by itself. ``expected``: a fault on its disk made that the right reaction."""

    node: str
    at: float
    code: int
    expected: bool
    words: str


class Summary(msgspec.Struct, frozen=True):
    """``series`` and ``availability``: by buckets of ``bucket_seconds`` since the run began, by the time of the invoke.

    ``too_busy``: the verdict is unknown only because the machine was busy with other things.
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
