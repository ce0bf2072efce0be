"""What was measured, as types: they are written to the JSON file as they are."""

from __future__ import annotations

import msgspec


class Answers(msgspec.Struct, frozen=True):
    """To an open loop of new values: what was asked for, values that were answered with 200, and the times of those requests.

    ``refused``: requests that were answered with 429 or 503; ``lost``: those that got no answer.
    """

    values_per_second: float
    values: int
    median_ms: float
    p99_ms: float
    refused: int
    lost: int


class ReadBack(msgspec.Struct, frozen=True):
    """Of tokens that were asked for: their value came; another one; "not found"; or none yet."""

    right: int
    wrong: int
    not_found: int
    unavailable: int


class Verified(msgspec.Struct, frozen=True):
    """By ``quorumvault verify``: whether three replicas are the same, and how many records there are, by peer."""

    identical: bool
    records: dict[str, int]


class Away(msgspec.Struct, frozen=True):
    """A node was down for ``seconds``. From its start on: until it served, and until nobody owed it anything.

    ``capacity``: new values a second in a closed loop, before anything was broken.
    """

    capacity: float
    seconds: float
    missed: int
    ready_seconds: float
    caught_up_seconds: float
    before: Answers
    meanwhile: Answers
    verified: Verified


class Lost(msgspec.Struct, frozen=True):
    """A node's data directory was deleted. From its operator's command on, until its new disk voted.

    ``capacity`` as above.
    """

    capacity: float
    whole_seconds: float
    before: Answers
    meanwhile: Answers
    verified: Verified


class Rotten(msgspec.Struct, frozen=True):
    """Bits flipped in a node's tables. From its start on, until it voted with a store that is whole; its starts meanwhile.

    ``meanwhile``: what was read through it until then; ``afterwards``: everything, once.
    """

    bits: int
    tables: int
    repaired_seconds: float
    starts: int
    meanwhile: ReadBack
    afterwards: ReadBack
    verified: Verified


class Rss(msgspec.Struct, frozen=True):
    """Of one node, in MiB: ``own`` is RssAnon, ``mapped`` RssFile, above all pages of tables that the kernel can take back."""

    own: float
    mapped: float

    @property
    def total(self) -> float:
        return self.own + self.mapped


class New(msgspec.Struct, frozen=True):
    """Values a second in a closed loop, and microseconds of the three nodes' CPU for each, compactions included."""

    values_per_second: float
    cpu: float


class Size(msgspec.Struct, frozen=True):
    """``start_seconds``: of each node in turn, while the two others run, killed and started, until it serves.

    ``resting``: the node that has most when all buckets are counted; ``peak``: the most that any node had under load then.
    ``round_bytes``: all that the three nodes wrote, to whomever, while one compared itself with both others; ``idle_bytes``:
    what they write in as long a time anyway. ``new_few`` and ``new_many``: new values, pair by pair.
    """

    records: int
    disk_mib: float
    start_seconds: list[float]
    counted_seconds: float
    resting: Rss
    peak: Rss
    round_bytes: int
    round_seconds: float
    idle_bytes: float
    new_few: list[New]
    new_many: list[New]


class HealingReport(msgspec.Struct, frozen=True):
    """A whole run. ``made`` is a date."""

    made: str
    machine: str
    plan: str
    records: int
    away: Away | None = None
    lost: Lost | None = None
    rotten: Rotten | None = None
    size: Size | None = None
