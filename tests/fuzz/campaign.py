"""Feeds targets, one after the other, each in its own process; keeps failing inputs, and prints a table of the results.

An input that kills the process, or blocks it for long, is recorded like any other failing input; then the next one follows.
"""

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fuzz.targets import made
from tests.fuzz.worker import Found, Order, Progress, input_of, work

#: Seconds for one batch of inputs, or for the start, after which the process counts as stuck.
HANG_SECONDS = 120.0
#: The most failing inputs of a target, after which its run ends; and how many inputs of one kind of failure are kept.
_MOST_FOUND, _MOST_OF_A_KIND = 50, 3
_SPAWN = multiprocessing.get_context("spawn")


class FuzzerError(Exception):
    """The process that feeds a target ended because of an error of its own."""


@dataclass(slots=True)
class Report:
    """The results of one target. ``next``: the next input."""

    target: str
    next: int
    total: Progress = field(default_factory=Progress)
    found: list[Found] = field(default_factory=list)


def run(order: Order, keep: Callable[[str, Found], None]) -> Report:
    """Carries out an order. Calls ``keep(target, found)`` for failing inputs, a few of each kind."""
    report, kinds = Report(order.target, order.first), Counter[str]()
    while not order.is_over(report.next, report.total.seconds) and len(report.found) < _MOST_FOUND:
        left = replace(
            order,
            first=report.next,
            count=None if order.count is None else order.first + order.count - report.next,
            seconds=None if order.seconds is None else order.seconds - report.total.seconds,
        )
        for found in _run_once(left, report):
            report.found.append(found)
            kind = found.words.partition(":")[0]
            kinds[kind] += 1
            if kinds[kind] <= _MOST_OF_A_KIND:
                keep(order.target, found)
    return report


def _run_once(order: Order, report: Report) -> Iterable[Found]:
    """Runs one process to its end, perhaps an early one, and removes what it leaves on disk."""
    # In memory, if there is such a folder: syncs are then free. Nodes do not start where there is little room.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() and not made(order.target).over_sockets else None
    with tempfile.TemporaryDirectory(prefix="quorumvault-fuzz-", dir=memory, ignore_cleanup_errors=True) as folder:
        yield from _process(order, report, folder)


def _process(order: Order, report: Report, folder: str) -> Iterable[Found]:
    place: Any = _SPAWN.Value("q", order.first, lock=False)
    mine, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=work, args=(order, place, theirs, folder))
    process.start()
    theirs.close()
    last, seen, since, is_stuck = Progress(), -1, time.monotonic(), False
    while True:
        if mine.poll(1.0):
            try:
                message = mine.recv()
            except EOFError:
                break
            if isinstance(message, Found):
                yield message
            else:
                last = message
            since = time.monotonic()
        elif place.value != seen:
            seen, since = place.value, time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            process.kill()
            is_stuck = True
            break
    process.join()
    report.total.add(last)
    report.next = order.first + last.inputs
    if process.exitcode and process.exitcode > 0:
        raise FuzzerError(f"{order.target}: the fuzzer itself failed, at input {place.value}; what it said is above")
    if process.exitcode:
        words = f"no end within {HANG_SECONDS:g} s" if is_stuck else f"the process ended with {process.exitcode}"
        report.total.outcomes["CRASHED"] += 1
        report.next = max(report.next, place.value) + 1
        target = made(order.target)
        yield Found(place.value, words, input_of(target, order.seed, place.value, order.target))


def keep(folder: Path, seed: int, target: str, found: Found) -> None:
    """Writes a failing input into the folder, which the first one creates."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{seed}-{found.index}.input"
    path.write_bytes(found.data)
    print(f"{target}: input {found.index} failed: {found.words}\n    {path}", flush=True)


def print_header() -> None:
    print(f"{'target':<15}{'inputs':>10}{'seconds':>9}{'inputs/s':>10}{'longest turn':>14}{'memory':>10}  outcomes", flush=True)


def print_report(report: Report) -> None:
    """Prints a line of the table: the time of the longest turn in milliseconds, memory in MiB, the most common outcomes."""
    total, (longest_turn, memory) = report.total, report.total.figures
    pace = total.inputs / total.seconds if total.seconds else 0.0
    outcomes = ", ".join(f"{word} {count:,}" for word, count in total.outcomes.most_common(9))
    print(
        f"{report.target:<15}{total.inputs:>10,}{total.seconds:>9.1f}{pace:>10,.0f}{longest_turn * 1000:>11,.0f} ms"
        f"{memory / 2**20:>6,.0f} MiB  {outcomes}",
        flush=True,
    )


def print_end(reports: list[Report], seed: int) -> None:
    total, found = sum(report.total.inputs for report in reports), sum(len(report.found) for report in reports)
    ends = {report.next for report in reports}
    print(f"\n{total:,} inputs, {found} of them failed. Seed {seed}; the last input of a target was {max(ends) - 1}.")
    sys.stdout.flush()
