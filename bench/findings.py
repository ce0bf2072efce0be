"""What a report comes to, in sentences: how it stands to its targets, what the client took, how far to trust the figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from bench.report import Cell, Report, speed_up
from bench.work import Operation

#: For a machine of two cores that runs nodes and client. Told, and asserted nowhere.
TARGET_RATIO = 2.2
TARGET_SPEED_UP = 2.0

#: A client that needs this much of a core is waited for by the nodes now and then.
_BUSY = 0.5


def findings(report: Report) -> list[str]:
    """Of a report of either plan."""
    return [_occasion(report), _ratio(report), _speed_up(report), _client(report), _noise(report)]


def _occasion(report: Report) -> str:
    return (
        f"Measured on {report.made} on {report.machine}. "
        f"Plan {report.plan}: {report.repetitions} repetitions, {report.records:,} records at the end."
    )


def _ratio(report: Report) -> str:
    cells = [cell for cell in report.cells if (cell.operation, cell.batch) == (Operation.NEW, 1_000)]
    return (
        f"New tokens in batches of 1,000, {_at_once(cells)} at once: the nodes need {_series(cell.ratio for cell in cells)} "
        f"times the floor's CPU, with the client's {_series(cell.ratio_with_client for cell in cells)} times. "
        f"Target: at most {TARGET_RATIO}, {_verdict(max(cell.ratio for cell in cells) <= TARGET_RATIO)}."
    )


def _speed_up(report: Report) -> str:
    factor = speed_up(report)
    return (
        f"Single tokenize requests, 16 at once: {factor:.2f} times as many a second as one at a time. "
        f"Target: at least {TARGET_SPEED_UP}, {_verdict(factor >= TARGET_SPEED_UP)}."
    )


def _client(report: Report) -> str:
    busiest = max(report.cells, key=lambda cell: cell.client_share)
    where = f"{busiest.operation.value}, batches of {busiest.batch:,}, {busiest.at_once} at once"
    verdict = "it held nothing up" if busiest.client_share < _BUSY else "it may have held up what it measured"
    return (
        f"Client: {report.client}. It was never busy for more than {busiest.client_share:.0%} of one core ({where}): {verdict}."
    )


def _noise(report: Report) -> str:
    spread = statistics.median(cell.highest_ratio / cell.lowest_ratio - 1 for cell in report.cells)
    return f"Noise: the highest ratio of a repetition is {spread:.0%} above the lowest (the median over the cells)."


def _series(figures: Iterable[float]) -> str:
    return " · ".join(f"{figure:.2f}" for figure in figures)


def _at_once(cells: Iterable[Cell]) -> str:
    return " · ".join(str(cell.at_once) for cell in cells)


def _verdict(met: bool) -> str:
    return "met" if met else "missed"
