"""The report of a healing run: the figures as types, and their comparison with the promises."""

import statistics
from collections.abc import Iterator

import msgspec

from bench.healing.plan import HEALING_SMOKE
from bench.report import Account, Check, Report, Table

MiB = 1 << 20
MOST_CATCH_UP_SECONDS = 10.0
MOST_WHOLE_SECONDS = 60.0
#: The most that the load's p99 may be while a disk is being replaced, as a multiple of the p99 before.
MOST_SLOWER = 2.0
MOST_START_SECONDS = 5.0
MOST_RSS_MIB = 600.0
MOST_ROUND_BYTES = 1 * MiB
#: The least share of new tokens a second among many records, relative to few records.
LEAST_SHARE = 0.6
_LOAD_COLUMNS = {
    "load: new values, batches of 100": "{0[0]}",
    "values/s": "{0[1].values_per_second:,.0f}",
    "answered": "{0[1].values:,}",
    "median ms": "{0[1].median_ms:.1f}",
    "p99 ms": "{0[1].p99_ms:.1f}",
    "refused": "{0[1].refused:,}",
    "lost": "{0[1].lost:,}",
}


class Answers(msgspec.Struct, frozen=True):
    """The answers to an open loop of new values: the rate, the values answered with 200, and the latencies of these requests.

    ``refused``: requests answered with 429 or 503. ``lost``: requests without an answer.
    """

    values_per_second: float
    values: int
    median_ms: float
    p99_ms: float
    refused: int
    lost: int


class ReadBack(msgspec.Struct, frozen=True):
    """Counts of tokens read back: with the right value, with another value, "not found", or without an answer yet."""

    right: int
    wrong: int
    not_found: int
    unavailable: int


class Verified(msgspec.Struct, frozen=True):
    """The result of ``quorumvault verify``: whether the three replicas are identical, and the number of records, by peer."""

    identical: bool
    records: dict[str, int]


class Away(msgspec.Struct, frozen=True):
    """A node was down for ``seconds``. Times from its start: until it served, and until no node owed it records.

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

    def checks(self, *, timed: bool) -> Iterator[Check]:
        what = f"down for {self.seconds:g} s, {self.missed:,} records missed: all handed off after"
        yield Check.of(what, self.caught_up_seconds, "≤", MOST_CATCH_UP_SECONDS, ".1f", " s", judged=timed)
        yield _identical("down", self.verified)

    def loads(self) -> list[tuple[str, Answers]]:
        return [("before a node is down", self.before), ("while it is down and catches up", self.meanwhile)]


class Lost(msgspec.Struct, frozen=True):
    """A node's data directory was deleted. The time from the operator's command until the new disk voted.

    ``capacity``: as in Away.
    """

    capacity: float
    whole_seconds: float
    before: Answers
    meanwhile: Answers
    verified: Verified

    def checks(self, *, timed: bool) -> Iterator[Check]:
        what = "data directory deleted: disk complete and voting after"
        yield Check.of(what, self.whole_seconds, "≤", MOST_WHOLE_SECONDS, ".1f", " s", judged=timed)
        what = f"p99 meanwhile, {self.meanwhile.p99_ms:.0f} ms, relative to before, {self.before.p99_ms:.0f} ms"
        yield Check.of(what, self.meanwhile.p99_ms / self.before.p99_ms, "≤", MOST_SLOWER, ".2f", " times", judged=timed)
        yield _identical("data directory deleted", self.verified)

    def loads(self) -> list[tuple[str, Answers]]:
        return [("before a data directory is deleted", self.before), ("until its node is whole", self.meanwhile)]


class Rotten(msgspec.Struct, frozen=True):
    """Bits flipped in a node's tables. The time from its start until it voted with a whole store; its starts meanwhile.

    ``meanwhile``: the reads through it until then. ``afterwards``: one read of everything.
    """

    bits: int
    tables: int
    repaired_seconds: float
    starts: int
    meanwhile: ReadBack
    afterwards: ReadBack
    verified: Verified

    def checks(self, *, timed: bool) -> Iterator[Check]:
        read = self.meanwhile.right + self.meanwhile.wrong + self.meanwhile.not_found
        yield Check(
            f"{self.bits} bits flipped in {self.tables} tables: “not found” and wrong among {read:,} reads until repaired",
            f"{self.meanwhile.not_found:,} and {self.meanwhile.wrong:,}",
            "0 and 0",
            self.meanwhile.not_found == self.meanwhile.wrong == 0,
        )
        after = self.afterwards
        yield Check(
            f"repaired in {self.repaired_seconds:.1f} s, {self.starts} starts: records not read back correctly",
            f"{after.not_found + after.wrong + after.unavailable:,} of {after.right:,}",
            "0",
            after.not_found == after.wrong == after.unavailable == 0,
        )
        yield _identical("bits flipped", self.verified)


class Rss(msgspec.Struct, frozen=True):
    """The memory of one node in MiB: ``own`` is RssAnon; ``mapped`` is RssFile, mostly tables, which the kernel can take back."""

    own: float
    mapped: float

    @property
    def total(self) -> float:
        return self.own + self.mapped


class New(msgspec.Struct, frozen=True):
    """Values a second in a closed loop, and the three nodes' CPU per value in microseconds, compactions included."""

    values_per_second: float
    cpu: float


class Size(msgspec.Struct, frozen=True):
    """``start_seconds``: for each node in turn, killed and started while the two others run, until it serves.

    ``resting``: memory of the node with the most, once all buckets are counted. ``peak``: the most of any node under load then.
    ``round_bytes``: all bytes that the three nodes wrote while one compared its replica with both others. ``idle_bytes``: the
    bytes that they write in the same time without a comparison. ``new_few`` and ``new_many``: new values, pair by pair.
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

    def checks(self, *, timed: bool) -> Iterator[Check]:
        what = f"{self.records:,} records, {self.disk_mib:,.0f} MiB per store: start to serving, slowest of three nodes"
        yield Check.of(what, max(self.start_seconds), "<", MOST_START_SECONDS, ".2f", " s", judged=timed)
        what = f"peak RSS: {self.peak.own:,.0f} MiB own, {self.peak.mapped:,.0f} MiB mapped pages of tables"
        yield Check.of(what, self.peak.total, "<", MOST_RSS_MIB, ",.0f", " MiB")
        what = f"idle comparison with both peers, {self.round_seconds:.1f} s: bytes written by all nodes"
        yield Check.of(f"{what}, {self.idle_bytes:,.0f} of them anyway", self.round_bytes, "<", MOST_ROUND_BYTES, ",")
        few, many = _speed(self.new_few), _speed(self.new_many)
        yield Check(
            f"new tokens per second, {many:,.0f}, relative to {few:,.0f} among few records (medians of {len(self.new_many)})",
            f"{many / few:.0%}",
            f"≥ {LEAST_SHARE:.0%}",
            many / few >= LEAST_SHARE,
            judged=timed,
        )


class HealingReport(Report, frozen=True):
    records: int
    away: Away | None = None
    lost: Lost | None = None
    rotten: Rotten | None = None
    size: Size | None = None

    def account(self) -> Account:
        """Returns the account. Times are judged only on an otherwise idle machine, with as many records as promised."""
        timed = self.plan != HEALING_SMOKE.name
        parts = [part for part in (self.away, self.lost, self.rotten, self.size) if part is not None]
        loads = [load for part in (self.away, self.lost) if part is not None for load in part.loads()]
        tables = [Table.of("What clients observed", loads, _LOAD_COLUMNS)] if loads else []
        return Account(tables, [check for part in parts for check in part.checks(timed=timed)], list(_sentences(self)))


def _identical(when: str, verified: Verified) -> Check:
    records = " and ".join(f"{count:,}" for count in verified.records.values())
    found = "identical" if verified.identical else "different"
    return Check(f"{when}: quorumvault verify, {records} records", found, "identical", verified.identical)


def _speed(samples: list[New]) -> float:
    return statistics.median(sample.values_per_second for sample in samples)


def _sentences(report: HealingReport) -> Iterator[str]:
    """Yields sentences with what the tables do not say."""
    yield f"{report.occasion}. Nodes and clients ran on the same machine."
    for when, broken in (("a node was down", report.away), ("a disk was replaced", report.lost)):
        if broken is not None:
            share = broken.meanwhile.values_per_second / broken.capacity
            yield f"While {when} the load was {share:.0%} of the {broken.capacity:,.0f} new values/s of a closed loop."
    if report.away is not None:
        yield f"The node that was down served {report.away.ready_seconds:.1f} s after its start."
    if report.rotten is not None:
        unanswered = report.rotten.meanwhile.unavailable
        yield f"While tables were rotten, {unanswered:,} look-ups through that node had no answer at first."
    if report.size is not None:
        own, mapped = report.size.resting.own, report.size.resting.mapped
        yield (
            f"All buckets were counted {report.size.counted_seconds:.0f} s after the last start. At rest the largest node had "
            f"{own:,.0f} MiB of its own and {mapped:,.0f} MiB of mapped tables, which the kernel can take back."
        )
        few, many = (statistics.median(new.cpu for new in samples) for samples in (report.size.new_few, report.size.new_many))
        yield f"A new token took {many:.0f} µs of the nodes' CPU, {few:.0f} µs among few records, compactions included."
