"""How the figures stand to what is promised. What is timed counts on a machine that has nothing else to do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.healing.figures import Answers, Away, HealingReport, Lost, New, Rotten, Size, Verified
from bench.table import Table

MiB = 1 << 20
MOST_CATCH_UP_SECONDS = 10.0
MOST_WHOLE_SECONDS = 60.0
#: p99 of the load while a disk is being replaced, as a multiple of what it was.
MOST_SLOWER = 2.0
MOST_START_SECONDS = 5.0
MOST_RSS_MIB = 600.0
MOST_ROUND_BYTES = 1 * MiB
#: New tokens a second among many records, as a share of those among few.
LEAST_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Check:
    """``timed``: it says something only where the machine has nothing else to do, and there are as many records as promised."""

    what: str
    figure: str
    target: str
    held: bool
    timed: bool = False


def judge(report: HealingReport) -> list[Check]:
    """All of what was measured, in the order in which it was."""
    checks: list[Check] = []
    if report.away is not None:
        checks += _away(report.away)
    if report.lost is not None:
        checks += _lost(report.lost)
    if report.rotten is not None:
        checks += _rotten(report.rotten)
    if report.size is not None:
        checks += _size(report.size)
    return checks


def holds(checks: list[Check], *, timed: bool) -> bool:
    return all(check.held for check in checks if timed or not check.timed)


def _away(away: Away) -> Iterator[Check]:
    yield Check(
        f"down for {away.seconds:g} s, {away.missed:,} records missed: nothing owed after",
        f"{away.caught_up_seconds:.1f} s",
        f"≤ {MOST_CATCH_UP_SECONDS:g} s",
        away.caught_up_seconds <= MOST_CATCH_UP_SECONDS,
        timed=True,
    )
    yield _identical("down", away.verified)


def _lost(lost: Lost) -> Iterator[Check]:
    yield Check(
        "data directory deleted: whole and voting after",
        f"{lost.whole_seconds:.1f} s",
        f"≤ {MOST_WHOLE_SECONDS:g} s",
        lost.whole_seconds <= MOST_WHOLE_SECONDS,
        timed=True,
    )
    slower = lost.meanwhile.p99_ms / lost.before.p99_ms
    yield Check(
        f"p99 meanwhile, {lost.meanwhile.p99_ms:.0f} ms, to before, {lost.before.p99_ms:.0f} ms",
        f"{slower:.2f} times",
        f"≤ {MOST_SLOWER:g} times",
        slower <= MOST_SLOWER,
        timed=True,
    )
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


def _size(size: Size) -> Iterator[Check]:
    slowest = max(size.start_seconds)
    yield Check(
        f"{size.records:,} records, {size.disk_mib:,.0f} MiB a store: start to serving, the slowest of three",
        f"{slowest:.2f} s",
        f"< {MOST_START_SECONDS:g} s",
        slowest < MOST_START_SECONDS,
        timed=True,
    )
    yield Check(
        f"RSS at its peak: {size.peak.own:,.0f} MiB own, {size.peak.mapped:,.0f} MiB mapped pages of tables",
        f"{size.peak.total:,.0f} MiB",
        f"< {MOST_RSS_MIB:g} MiB",
        size.peak.total < MOST_RSS_MIB,
    )
    yield Check(
        f"idle comparison with both peers, {size.round_seconds:.1f} s: bytes of all nodes, {size.idle_bytes:,.0f} of them anyway",
        f"{size.round_bytes:,}",
        f"< {MOST_ROUND_BYTES:,}",
        size.round_bytes < MOST_ROUND_BYTES,
    )
    few, many = _speed(size.new_few), _speed(size.new_many)
    yield Check(
        f"new tokens a second, {many:,.0f}, to {few:,.0f} among few records (medians of {len(size.new_many)})",
        f"{many / few:.0%}",
        f"≥ {LEAST_SHARE:.0%}",
        many / few >= LEAST_SHARE,
        timed=True,
    )


def _speed(samples: list[New]) -> float:
    return statistics.median(sample.values_per_second for sample in samples)


def tables(report: HealingReport, *, timed: bool) -> list[Table]:
    rows: list[tuple[str, ...]] = [(check.what, check.figure, check.target, _verdict(check, timed)) for check in judge(report)]
    drawn = [Table("What was promised", ("what", "figure", "target", ""), rows)]
    if loads := list(_loads(report)):
        columns = ("load: new values, batches of 100", "values/s", "answered", "median ms", "p99 ms", "refused", "lost")
        drawn.append(Table("What clients had meanwhile", columns, loads))
    return drawn


def _verdict(check: Check, timed: bool) -> str:
    if check.timed and not timed:
        return "not judged"
    return "ok" if check.held else "MISSED"


def _loads(report: HealingReport) -> Iterator[tuple[str, ...]]:
    if report.away is not None:
        yield _load("before a node is down", report.away.before)
        yield _load("while it is down and catches up", report.away.meanwhile)
    if report.lost is not None:
        yield _load("before a data directory is deleted", report.lost.before)
        yield _load("until its node is whole", report.lost.meanwhile)


def _load(when: str, answers: Answers) -> tuple[str, ...]:
    return (
        when,
        f"{answers.values_per_second:,.0f}",
        f"{answers.values:,}",
        f"{answers.median_ms:.1f}",
        f"{answers.p99_ms:.1f}",
        f"{answers.refused:,}",
        f"{answers.lost:,}",
    )


def findings(report: HealingReport) -> list[str]:
    """In sentences: what the tables do not say."""
    told = [f"Measured on {report.made} on {report.machine}, which ran nodes and clients. Plan {report.plan}."]
    for when, broken in (("a node was down", report.away), ("a disk was replaced", report.lost)):
        if broken is not None:
            share = broken.meanwhile.values_per_second / broken.capacity
            told.append(f"While {when} the load was {share:.0%} of the {broken.capacity:,.0f} new values/s of a closed loop.")
    if report.away is not None:
        told.append(f"The node that was down served {report.away.ready_seconds:.1f} s after its start.")
    if report.rotten is not None:
        told.append(
            f"While tables were rotten, {report.rotten.meanwhile.unavailable:,} look-ups through that node had no answer yet."
        )
    if report.size is not None:
        own, mapped = report.size.resting.own, report.size.resting.mapped
        told.append(
            f"Buckets were counted {report.size.counted_seconds:.0f} s after the last start; at rest the node with most then had "
            f"{own:,.0f} MiB of its own and {mapped:,.0f} MiB of mapped tables, which the kernel takes back if need be."
        )
        few, many = (statistics.median(new.cpu for new in samples) for samples in (report.size.new_few, report.size.new_many))
        told.append(f"A new token took {many:.0f} µs of the nodes' CPU, {few:.0f} µs among few records, compactions included.")
    return told
