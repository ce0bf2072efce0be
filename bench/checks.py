"""What ``bin/bench smoke`` holds a change to: ratios to the floor, never times, with room for a machine that is shared.

The bounds are two to three times of what is usual. They find what has become several times dearer: a batch that is handled value
by value, a sync for each record, a request that is sent twice. Smaller steps are for a full run to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report import Report, speed_up
from bench.work import Operation

#: CPU of the nodes as a multiple of the floor's, by operation, batch size and requests at once.
BOUNDS: Mapping[tuple[Operation, int, int], float] = {
    (Operation.NEW, 1_000, 6): 4.0,
    (Operation.REPEATED, 1_000, 6): 5.0,
    (Operation.RECOVERED, 1_000, 6): 5.0,
}
#: Single requests at once have to gain something: 1 would be a vault that does one thing at a time.
LEAST_SPEED_UP = 1.2


@dataclass(frozen=True, slots=True)
class Verdict:
    held: bool
    text: str


def judge(report: Report) -> list[Verdict]:
    """One verdict a bound. KeyError if a cell that has a bound was not measured."""
    verdicts = []
    for (operation, batch, at_once), bound in BOUNDS.items():
        cell = report.cell(operation, batch, at_once)
        text = (
            f"{operation.value}, batches of {batch:,}, {at_once} at once: {cell.ratio:.2f} times the floor's CPU; bound {bound}"
        )
        verdicts.append(Verdict(cell.ratio <= bound, text))
    factor = speed_up(report)
    text = f"single requests, 16 at once: {factor:.2f} times as many a second as one at a time; bound {LEAST_SPEED_UP}"
    verdicts.append(Verdict(factor >= LEAST_SPEED_UP, text))
    return verdicts
