"""The report of a healing run: the figures as types, and how they stand to what is promised."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec

from bench.healing.plan import HEALING_SMOKE
from bench.report import Account, Check, Report, Table

MiB = 1 << 20
MOST_CATCH_UP_SECONDS = 10.0
MOST_WHOLE_SECONDS = 60.0
#: The p99 of the load while a disk is being replaced, as a multiple of what it was before.
MOST_SLOWER = 2.0
MOST_START_SECONDS = 5.0
MOST_RSS_MIB = 600.0
MOST_ROUND_BYTES = 1 * MiB
#: New tokens a second among many records, as a share of those among few.
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
    """The answers to an open loop of new values: the rate, the values answered with 200, and the times of those requests.

    ``refused``: requests that were answered with 429 or 503; ``lost``: those that got no answer.
    """

    values_per_second: float
    values: int
    median_ms: float
    p99_ms: float
    refused: int
    lost: int


class ReadBack(msgspec.Struct, frozen=True):
    """Counts of tokens that were read back: with their value, with another one, "not found", or without an answer yet."""

    right: int
    wrong: int
    not_found: int
    unavailable: int


class Verified(msgspec.Struct, frozen=True):
    """The result of ``quorumvault verify``: whether three replicas are the same, and how many records there are, by peer."""

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
    """The memory of one node in MiB: ``own`` is RssAnon; ``mapped`` is RssFile, mostly tables, which the kernel can take back."""

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


class HealingReport(Report, frozen=True):
    records: int
    away: Away | None = None
    lost: Lost | None = None
    rotten: Rotten | None = None
    size: Size | None = None

    def account(self) -> Account:
        """Times are judged only where the machine has nothing else to do, and there are as many records as promised."""
        loads = list(_loads(self))
        tables = [Table.of("What clients had meanwhile", loads, _LOAD_COLUMNS)] if loads else []
        return Account(tables, list(_checks(self, timed=self.plan != HEALING_SMOKE.name)), list(_sentences(self)))


def _checks(report: HealingReport, *, timed: bool) -> Iterator[Check]:
    """Yields one check for each promise that was measured, in the order of the runs."""
    if report.away is not None:
        yield from _away(report.away, timed=timed)
    if report.lost is not None:
        yield from _lost(report.lost, timed=timed)
    if report.rotten is not None:
        yield from _rotten(report.rotten)
    if report.size is not None:
        yield from _size(report.size, timed=timed)


def _away(away: Away, *, timed: bool) -> Iterator[Check]:
    what = f"down for {away.seconds:g} s, {away.missed:,} records missed: nothing owed after"
    yield Check.of(what, away.caught_up_seconds, "≤", MOST_CATCH_UP_SECONDS, ".1f", " s", judged=timed)
    yield _identical("down", away.verified)


def _lost(lost: Lost, *, timed: bool) -> Iterator[Check]:
    what = "data directory deleted: whole and voting after"
    yield Check.of(what, lost.whole_seconds, "≤", MOST_WHOLE_SECONDS, ".1f", " s", judged=timed)
    what = f"p99 meanwhile, {lost.meanwhile.p99_ms:.0f} ms, to before, {lost.before.p99_ms:.0f} ms"
    yield Check.of(what, lost.meanwhile.p99_ms / lost.before.p99_ms, "≤", MOST_SLOWER, ".2f", " times", judged=timed)
    yield _identical("data directory deleted", lost.verified)


def _rotten(rotten: Rotten) -> Iterator[Check]:
    read = rotten.meanwhile.right + rotten.meanwhile.wrong + rotten.meanwhile.not_found
    yield Check(
        f"{rotten.bits} bits flipped in {rotten.tables} tables: “not found” or wrong among {read:,} read until then",
        f"{rotten.meanwhile.not_found:,} and {rotten.meanwhile.wrong:,}",
        "0 and 0",
        rotten.meanwhile.not_found == rotten.meanwhile.wrong == 0,
    )
    after = rotten.afterwards
    yield Check(
        f"repaired in {rotten.repaired_seconds:.1f} s, {rotten.starts} starts: all read back, not right",
        f"{after.not_found + after.wrong + after.unavailable:,} of {after.right:,}",
        "0",
        after.not_found == after.wrong == after.unavailable == 0,
    )
    yield _identical("bits flipped", rotten.verified)


def _identical(when: str, verified: Verified) -> Check:
    records = " and ".join(f"{count:,}" for count in verified.records.values())
    found = "identical" if verified.identical else "different"
    return Check(f"{when}: quorumvault verify, {records} records", found, "identical", verified.identical)


def _size(size: Size, *, timed: bool) -> Iterator[Check]:
    what = f"{size.records:,} records, {size.disk_mib:,.0f} MiB a store: start to serving, the slowest of three"
    yield Check.of(what, max(size.start_seconds), "<", MOST_START_SECONDS, ".2f", " s", judged=timed)
    what = f"RSS at its peak: {size.peak.own:,.0f} MiB own, {size.peak.mapped:,.0f} MiB mapped pages of tables"
    yield Check.of(what, size.peak.total, "<", MOST_RSS_MIB, ",.0f", " MiB")
    what = f"idle comparison with both peers, {size.round_seconds:.1f} s: bytes of all nodes"
    yield Check.of(f"{what}, {size.idle_bytes:,.0f} of them anyway", size.round_bytes, "<", MOST_ROUND_BYTES, ",")
    few, many = _speed(size.new_few), _speed(size.new_many)
    yield Check(
        f"new tokens a second, {many:,.0f}, to {few:,.0f} among few records (medians of {len(size.new_many)})",
        f"{many / few:.0%}",
        f"≥ {LEAST_SHARE:.0%}",
        many / few >= LEAST_SHARE,
        judged=timed,
    )


def _speed(samples: list[New]) -> float:
    return statistics.median(sample.values_per_second for sample in samples)


def _loads(report: HealingReport) -> Iterator[tuple[str, Answers]]:
    if report.away is not None:
        yield "before a node is down", report.away.before
        yield "while it is down and catches up", report.away.meanwhile
    if report.lost is not None:
        yield "before a data directory is deleted", report.lost.before
        yield "until its node is whole", report.lost.meanwhile


def _sentences(report: HealingReport) -> Iterator[str]:
    """Yields what the tables do not say."""
    yield f"{report.occasion}. The machine ran nodes and clients."
    for when, broken in (("a node was down", report.away), ("a disk was replaced", report.lost)):
        if broken is not None:
            share = broken.meanwhile.values_per_second / broken.capacity
            yield f"While {when} the load was {share:.0%} of the {broken.capacity:,.0f} new values/s of a closed loop."
    if report.away is not None:
        yield f"The node that was down served {report.away.ready_seconds:.1f} s after its start."
    if report.rotten is not None:
        unanswered = report.rotten.meanwhile.unavailable
        yield f"While tables were rotten, {unanswered:,} look-ups through that node had no answer yet."
    if report.size is not None:
        own, mapped = report.size.resting.own, report.size.resting.mapped
        yield (
            f"Buckets were counted {report.size.counted_seconds:.0f} s after the last start; at rest the node with most then had "
            f"{own:,.0f} MiB of its own and {mapped:,.0f} MiB of mapped tables, which the kernel takes back if need be."
        )
        few, many = (statistics.median(new.cpu for new in samples) for samples in (report.size.new_few, report.size.new_many))
        yield f"A new token took {many:.0f} µs of the nodes' CPU, {few:.0f} µs among few records, compactions included."
