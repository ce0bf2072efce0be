"""What a run says: samples become one cell for each operation, batch size and number of requests at once.

Of what is timed, and of memory, the median of the repetitions counts, figure by figure. CPU is added up over them: compactions
come in lumps, at every eighty thousandth value or so, which a median would leave out or count twice. Vault and floor are
measured in turn, seconds apart, and how far the ratios of single repetitions lie apart says how far to trust the whole.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench.measure import FloorSample, Sample
from bench.work import Operation

CLIENT = "bench/http.py: one process, one thread, epoll, requests encoded beforehand, answers checked afterwards"


class Cell(msgspec.Struct, frozen=True):
    """CPU is in seconds a million values; ``ratio`` is the nodes' to the floor's, of all repetitions and of the extreme ones.

    ``client_share`` is of one core. Memory in MiB, of the node that has most; disk in bytes for each record on each node.
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
    floor_cpu: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    ratio_with_client: float
    client_share: float
    own_mib: float
    mapped_mib: float
    disk_bytes_per_record: float


class FloorCell(msgspec.Struct, frozen=True):
    """CPU in seconds a million values: in all, and the part of it that LevelDB's compactions took."""

    operation: Operation
    batch: int
    values_per_second: float
    cpu: float
    compaction_cpu: float


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

    def cell(self, operation: Operation, batch: int, at_once: int) -> Cell:
        """KeyError if it was not measured."""
        key = (operation, batch, at_once)
        return {(cell.operation, cell.batch, cell.at_once): cell for cell in self.cells}[key]


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
    values = sum(sample.values for sample in samples)
    nodes_cpu = sum(sample.nodes_cpu for sample in samples) / values
    client_cpu = sum(sample.client_cpu for sample in samples) / values
    floor_cpu = _floor_cpu(samples)
    ratios = [sample.nodes_cpu / sample.values / _floor_cpu([sample]) for sample in samples]
    return Cell(
        operation=samples[0].operation,
        batch=samples[0].batch,
        at_once=samples[0].at_once,
        requests=len(latencies),
        values_per_second=median(lambda sample: sample.values / sample.seconds),
        median_ms=statistics.median(latencies) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
        nodes_cpu=nodes_cpu * 1e6,
        client_cpu=client_cpu * 1e6,
        floor_cpu=floor_cpu * 1e6,
        ratio=nodes_cpu / floor_cpu,
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        ratio_with_client=(nodes_cpu + client_cpu) / floor_cpu,
        client_share=median(lambda sample: sample.client_cpu / sample.seconds),
        own_mib=median(lambda sample: sample.memory.own),
        mapped_mib=median(lambda sample: sample.memory.mapped),
        disk_bytes_per_record=median(lambda sample: sample.disk_bytes / sample.records),
    )


def _floor_cpu(samples: Sequence[Sample]) -> float:
    """CPU seconds a value, of all measurements of the floor before and after samples."""
    floors = [floor for sample in samples for floor in sample.floors]
    return sum(floor.cpu for floor in floors) / sum(floor.values for floor in floors)


def _floor_cell(operation: Operation, batch: int, samples: Sequence[FloorSample]) -> FloorCell:
    speed = statistics.median(sample.values / sample.seconds for sample in samples)
    millions = sum(sample.values for sample in samples) / 1e6
    cpu, compaction_cpu = sum(sample.cpu for sample in samples), sum(sample.compaction_cpu for sample in samples)
    return FloorCell(operation, batch, speed, cpu / millions, compaction_cpu / millions)


def percentile(numbers: Sequence[float], percent: int) -> float:
    """By nearest rank: the smallest of the numbers that so many percent of them do not exceed. Of few, the largest."""
    return sorted(numbers)[math.ceil(len(numbers) * percent / 100) - 1]


def speed_up(report: Report) -> float:
    """How many times as many single tokenize requests a second 16 at once are as one at a time. KeyError if not measured."""
    alone, together = report.cell(Operation.NEW, 1, 1), report.cell(Operation.NEW, 1, 16)
    return together.values_per_second / alone.values_per_second
