"""The vault's report: turns samples into one cell for each operation, batch size and number of requests at once.

Times and memory are medians over the repetitions, figure by figure. CPU is a sum over the repetitions: compactions come in lumps,
about one every eighty thousand values, which a median would leave out or count twice. Vault and floor are measured in turn,
seconds apart. The spread of the ratios of single repetitions shows how far to trust the result.
"""

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.floor import Floor
from bench.load import Load, start
from bench.measure import Bench, FloorSample, Sample
from bench.plan import AT_ONCE, SMOKE, Plan
from bench.report import Account, Check, Report, Table, Tell, percentile, today
from bench.work import Operation

CLIENT = "bench/http.py: one process, one thread, epoll, requests encoded beforehand, answers checked afterwards"
#: If the client uses this share of one core, the nodes sometimes wait for it.
_BUSY = 0.5


class Targets(NamedTuple):
    """``ratios``: the nodes' CPU as a multiple of the floor's, by operation, batch size and requests at once.

    ``speed_up``: 16 single requests at once, beside one at a time.
    """

    ratios: Mapping[tuple[Operation, int, int], float]
    speed_up: float


#: For a machine of two cores that runs nodes and client. These targets are shown, but never asserted.
TARGETS = Targets({(Operation.NEW, 1_000, at_once): 2.2 for at_once in AT_ONCE}, 2.0)
#: The bounds that ``bin/bench smoke`` asserts: two to three times the usual figures, since the machine may be shared. They catch
#: work that costs several times more: a batch handled value by value, a sync for each record, a request sent twice.
BOUNDS = Targets({(Operation.NEW, 1_000, 6): 4.0, (Operation.REPEATED, 1_000, 6): 5.0, (Operation.RECOVERED, 1_000, 6): 5.0}, 1.2)


class Cell(msgspec.Struct, frozen=True):
    """CPU in seconds per million values; ``ratio``: the nodes' CPU to the floor's, over all repetitions and at the extremes.

    ``client_share``: of one core. Memory in MiB, of the node with the most; disk in bytes per record on each node.
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

    @property
    def where(self) -> str:
        return f"{self.operation.value}, batches of {self.batch:,}, {self.at_once} at once"


class FloorCell(msgspec.Struct, frozen=True):
    """CPU in seconds per million values: in total, and the part of LevelDB's compactions."""

    operation: Operation
    batch: int
    values_per_second: float
    cpu: float
    compaction_cpu: float


class VaultReport(Report, frozen=True):
    repetitions: int
    records: int
    client: str
    cells: list[Cell]
    floor: list[FloorCell]

    def cell(self, operation: Operation, batch: int, at_once: int) -> Cell:
        """Returns a cell. Raises KeyError if it was not measured."""
        key = (operation, batch, at_once)
        return {(cell.operation, cell.batch, cell.at_once): cell for cell in self.cells}[key]

    def account(self) -> Account:
        """Returns the account of the report. Raises KeyError if a cell with a target was not measured."""
        smoke = self.plan == SMOKE.name
        return Account(_tables(self), _checks(self, BOUNDS if smoke else TARGETS), _sentences(self), asserted=smoke)


def run(plan: Plan, place: Path, tell: Tell) -> VaultReport:
    """Measures a new cluster and a floor, in an empty directory."""
    with start(place / "cluster") as cluster, closing(Floor(place / "floor")) as floor:
        samples = Bench(Load(cluster), floor, plan, tell).run()
        cluster.stop()
    return summarise(samples, plan.name, plan.repetitions)


def summarise(samples: Sequence[Sample], plan: str, repetitions: int) -> VaultReport:
    """Summarizes samples, at least one. Cells are in the order of their first samples."""
    by_cell: dict[tuple[Operation, int, int], list[Sample]] = {}
    by_floor: dict[tuple[Operation, int], list[FloorSample]] = {}
    for sample in samples:
        by_cell.setdefault((sample.operation, sample.batch, sample.at_once), []).append(sample)
        by_floor.setdefault((sample.operation, sample.batch), []).extend(sample.floors)
    cells = [_cell(group) for group in by_cell.values()]
    floor = [_floor_cell(*key, group) for key, group in by_floor.items()]
    return VaultReport(*today(), plan, repetitions, max(sample.records for sample in samples), CLIENT, cells, floor)


def _cell(samples: Sequence[Sample]) -> Cell:
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
        values_per_second=statistics.median(sample.values / sample.seconds for sample in samples),
        median_ms=statistics.median(latencies) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
        nodes_cpu=nodes_cpu * 1e6,
        client_cpu=client_cpu * 1e6,
        floor_cpu=floor_cpu * 1e6,
        ratio=nodes_cpu / floor_cpu,
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        ratio_with_client=(nodes_cpu + client_cpu) / floor_cpu,
        client_share=statistics.median(sample.client_cpu / sample.seconds for sample in samples),
        own_mib=statistics.median(sample.memory.own for sample in samples),
        mapped_mib=statistics.median(sample.memory.mapped for sample in samples),
        disk_bytes_per_record=statistics.median(sample.disk_bytes / sample.records for sample in samples),
    )


def _floor_cpu(samples: Sequence[Sample]) -> float:
    """Returns the CPU seconds per value, over all measurements of the floor before and after the samples."""
    floors = [floor for sample in samples for floor in sample.floors]
    return sum(floor.cpu for floor in floors) / sum(floor.values for floor in floors)


def _floor_cell(operation: Operation, batch: int, samples: Sequence[FloorSample]) -> FloorCell:
    speed = statistics.median(sample.values / sample.seconds for sample in samples)
    millions = sum(sample.values for sample in samples) / 1e6
    cpu, compaction_cpu = sum(sample.cpu for sample in samples), sum(sample.compaction_cpu for sample in samples)
    return FloorCell(operation, batch, speed, cpu / millions, compaction_cpu / millions)


def _checks(report: VaultReport, targets: Targets) -> list[Check]:
    checks = []
    for key, most in targets.ratios.items():
        cell = report.cell(*key)
        what = f"{cell.where}: CPU relative to the floor's ({cell.ratio_with_client:.2f} with the client's)"
        checks.append(Check.of(what, cell.ratio, "≤", most, ".2f"))
    alone, together = report.cell(Operation.NEW, 1, 1), report.cell(Operation.NEW, 1, 16)
    factor = together.values_per_second / alone.values_per_second
    what = "single tokenize requests, 16 at once: requests/s relative to one at a time"
    return [*checks, Check.of(what, factor, "≥", targets.speed_up, ".2f")]


def _sentences(report: VaultReport) -> list[str]:
    busiest = max(report.cells, key=lambda cell: cell.client_share)
    verdict = "it held nothing up" if busiest.client_share < _BUSY else "it may have held up what it measured"
    spread = statistics.median(cell.highest_ratio / cell.lowest_ratio - 1 for cell in report.cells)
    return [
        f"{report.occasion}: {report.repetitions} repetitions, {report.records:,} records at the end.",
        f"Client: {report.client}.",
        f"The client used at most {busiest.client_share:.0%} of one core ({busiest.where}): {verdict}.",
        f"Noise: the highest ratio among a cell's repetitions is {spread:.0%} above the lowest (median of all cells).",
    ]


def _tables(report: VaultReport) -> list[Table]:
    vault: dict[str, str | Callable[[Cell], str]] = {
        "operation": "{0.operation.value}",
        "batch": "{0.batch:,}",
        "at once": "{0.at_once}",
        "values/s": "{0.values_per_second:,.0f}",
        "median ms": lambda cell: _figure(cell.median_ms),
        "p99 ms": lambda cell: _figure(cell.p99_ms),
        "CPU nodes": lambda cell: _figure(cell.nodes_cpu),
        "CPU client": lambda cell: _figure(cell.client_cpu),
        "CPU floor": lambda cell: _figure(cell.floor_cpu),
        "nodes ÷ floor": "{0.ratio:.2f}",
        "range": "{0.lowest_ratio:.2f}–{0.highest_ratio:.2f}",
        "own MiB": "{0.own_mib:,.0f}",
        "mapped MiB": "{0.mapped_mib:,.0f}",
        "B/record": "{0.disk_bytes_per_record:,.0f}",
    }
    floor: dict[str, str | Callable[[FloorCell], str]] = {
        "operation": "{0.operation.value}",
        "batch": "{0.batch:,}",
        "values/s": "{0.values_per_second:,.0f}",
        "CPU": lambda cell: _figure(cell.cpu),
        "CPU of compactions": lambda cell: _figure(cell.compaction_cpu),
    }
    unit = "(CPU: seconds per million values)"
    return [
        Table.of(f"The vault: three nodes and the client {unit}", report.cells, vault),
        Table.of(f"The floor: only the indispensable work, in one process {unit}", report.floor, floor),
    ]


def _figure(figure: float) -> str:
    """Returns a figure with three digits, or with all digits before the point if there are more."""
    return f"{figure:z,.{2 if figure < 10 else 1 if figure < 100 else 0}f}"
