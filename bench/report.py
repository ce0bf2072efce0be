"""What a run says: samples become one cell for each operation, batch size and number of requests at once.

Of the repetitions the median counts, figure by figure. A ratio to the floor is taken within each repetition first, between
measurements that are seconds apart, and then its median; it is not the ratio of two medians.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench.measure import FloorSample, Sample
from bench.work import Operation

#: Targets, for a machine of two cores that runs nodes and client. Told in the report, and asserted nowhere.
TARGET_RATIO = 2.2
TARGET_SPEED_UP = 2.0

CLIENT = "bench/http.py: one process, one thread, epoll, requests encoded beforehand, answers checked afterwards"


class Cell(msgspec.Struct, frozen=True):
    """CPU is in seconds a million values; ``ratio`` that of the nodes to the floor's; ``client_share`` of one core.

    Memory in MiB of the node that has most, disk in bytes for each record on each node.
    """

    operation: Operation
    batch: int
    at_once: int
    requests: int
    values_per_second: float
    median_ms: float
    p99_ms: float
    nodes_cpu: float
    client_cpu: float
    ratio: float
    ratio_with_client: float
    client_share: float
    own_mib: float
    mapped_mib: float
    disk_bytes_per_record: float


class FloorCell(msgspec.Struct, frozen=True):
    """``spread``: how far the dearest repetition is above the cheapest, as a part of it."""

    operation: Operation
    batch: int
    values_per_second: float
    cpu: float
    spread: float


class Report(msgspec.Struct, frozen=True):
    """A whole run. ``made`` is a date."""

    made: str
    machine: str
    plan: str
    repetitions: int
    records: int
    client: str
    cells: list[Cell]
    floor: list[FloorCell]

    def cell(self, operation: Operation, batch: int, at_once: int) -> Cell | None:
        return next((c for c in self.cells if (c.operation, c.batch, c.at_once) == (operation, batch, at_once)), None)

    def floor_of(self, cell: Cell) -> FloorCell:
        return next(f for f in self.floor if (f.operation, f.batch) == (cell.operation, cell.batch))


def summarise(samples: Sequence[Sample], *, made: str, machine: str, plan: str, repetitions: int) -> Report:
    """Of at least one sample; cells are in the order in which their first samples were taken."""
    by_cell: dict[tuple[Operation, int, int], list[Sample]] = {}
    by_floor: dict[tuple[Operation, int], list[FloorSample]] = {}
    for sample in samples:
        by_cell.setdefault((sample.operation, sample.batch, sample.at_once), []).append(sample)
        by_floor.setdefault((sample.operation, sample.batch), []).extend(sample.floors)
    return Report(
        made=made,
        machine=machine,
        plan=plan,
        repetitions=repetitions,
        records=max(sample.records for sample in samples),
        client=CLIENT,
        cells=[_cell(group) for group in by_cell.values()],
        floor=[_floor_cell(operation, batch, group) for (operation, batch), group in by_floor.items()],
    )


def _cell(samples: Sequence[Sample]) -> Cell:
    def median(figure: Callable[[Sample], float]) -> float:
        return statistics.median(map(figure, samples))

    latencies = list(itertools.chain.from_iterable(sample.latencies for sample in samples))
    return Cell(
        operation=samples[0].operation,
        batch=samples[0].batch,
        at_once=samples[0].at_once,
        requests=len(latencies),
        values_per_second=median(lambda sample: sample.values / sample.seconds),
        median_ms=statistics.median(latencies) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
        nodes_cpu=median(lambda sample: sample.nodes_cpu / sample.values * 1e6),
        client_cpu=median(lambda sample: sample.client_cpu / sample.values * 1e6),
        ratio=median(lambda sample: sample.nodes_cpu / sample.values / floor_cpu(sample)),
        ratio_with_client=median(lambda sample: (sample.nodes_cpu + sample.client_cpu) / sample.values / floor_cpu(sample)),
        client_share=median(lambda sample: sample.client_cpu / sample.seconds),
        own_mib=median(lambda sample: sample.memory.own),
        mapped_mib=median(lambda sample: sample.memory.mapped),
        disk_bytes_per_record=median(lambda sample: sample.disk_bytes / sample.records / 3),
    )


def floor_cpu(sample: Sample) -> float:
    """CPU seconds a value, of the measurements of the floor before and after a sample together."""
    return sum(floor.cpu for floor in sample.floors) / sum(floor.values for floor in sample.floors)


def _floor_cell(operation: Operation, batch: int, samples: Sequence[FloorSample]) -> FloorCell:
    costs = [sample.cpu / sample.values for sample in samples]
    speed = statistics.median(sample.values / sample.seconds for sample in samples)
    return FloorCell(operation, batch, speed, statistics.median(costs) * 1e6, max(costs) / min(costs) - 1)


def percentile(numbers: Sequence[float], percent: int) -> float:
    """Between neighbours, in proportion; of one number, itself."""
    if len(numbers) == 1:
        return numbers[0]
    return statistics.quantiles(numbers, n=100, method="inclusive")[percent - 1]


def speed_up(report: Report) -> float | None:
    """How many times as many single tokenize requests a second 16 at once are as one at a time."""
    alone, together = report.cell(Operation.NEW, 1, 1), report.cell(Operation.NEW, 1, 16)
    return None if alone is None or together is None else together.values_per_second / alone.values_per_second
