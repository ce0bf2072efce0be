"""A run: vault and rival answer the same requests in turn, A B A B, and must give the same answers.

Other work on the machine slows measurements within the same seconds alike, so the ratio within a pair is what counts. CPU covers
all processes of a side until the work that the requests caused is done: compactions, replay. Both sides get every request, so
both hold the same records at all times.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.load import Driving, Load, drive, start
from bench.postgres.database import programs
from bench.postgres.plan import AFTER, NEW, PART_AFTER, PART_SETTLED, PART_SMALL, SETTLED, SMALL_NEW, Cell, PostgresPlan
from bench.postgres.report import Pair, PostgresReport, Side, report
from bench.postgres.rival import Rival
from bench.processes import until_idle
from bench.report import Tell, percentile
from bench.work import Corpus, Operation, Task, WrongAnswer
from chaos.testbed.cluster import NODES, Cluster

_BATCH, _AT_ONCE = 1_000, 6
#: Requests between two updates of the progress bar.
_FILLED_AT_ONCE = 50
#: The most passes of reads: a store that still compacts after them is measured as it is.
_MOST_PASSES = 8

#: For cluster.yaml: 2 GB for all nodes together. Each of the rival's three servers has as much for its buffers (database.py).
_MEMORY: Final = f"limits:\n  cache_bytes: {640 << 20}\n"

_decode = msgspec.json.Decoder().decode


def measure(plan: PostgresPlan, place: Path, tell: Tell) -> PostgresReport:
    """Runs a plan in an empty directory. Raises PostgresError, LoadFailed, WrongAnswer, ClusterError."""
    programs()  # fails now, not after a cluster has started
    with start(place / "cluster", _MEMORY) as cluster, Rival(place / "postgres", cluster) as rival:
        bench = _Bench(cluster, rival, plan, tell)
        pairs = bench.run()
        return report(plan, rival.database.version, bench.settling_reads, pairs)


class _Bench:
    """Runs the parts of a plan. ``settling_reads``: the values read until the vault's stores compacted nothing more."""

    def __init__(self, cluster: Cluster, rival: Rival, plan: PostgresPlan, tell: Tell) -> None:
        self.settling_reads = 0
        self._vault = Load(cluster)
        self._rival = rival
        self._logs = [cluster.directory / name / "store" / "LOG" for name in NODES]
        self._plan = plan
        self._tell = tell
        self._corpus = Corpus(plan.stride, seed=1)
        self._hot: list[int] = []

    def run(self) -> dict[Cell, list[Pair]]:
        self._fill()
        self._rival.database.analyze()
        self._hot = self._corpus.hot(self._plan.hot)
        found: dict[Cell, list[Pair]] = {}
        parts: dict[str, Callable[[], Iterator[tuple[Cell, Pair]]]] = {
            PART_SETTLED: self._settled,
            PART_AFTER: self._after_writes,
            PART_SMALL: self._small_new,
        }
        for name in self._plan.runs:
            for cell, pair in parts[name]():
                found.setdefault(cell, []).append(pair)
        return found

    def _fill(self) -> None:
        while (filled := self._corpus.records) < self._plan.records:
            self._tell(f"filling both: {filled:,} records", 0.3 * filled / self._plan.records)
            requests = min(_FILLED_AT_ONCE, -(-(self._plan.records - filled) // _BATCH))
            self._both([self._corpus.task(Operation.NEW, _BATCH, requests)], _AT_ONCE)

    def _after_writes(self) -> Iterator[tuple[Cell, Pair]]:
        """Measures each read right after writes of its own, first on the vault, then on the rival."""
        for number in range(self._plan.repetitions):
            for cell in AFTER:
                self._tell(cell.where, 0.6 + 0.3 * number / self._plan.repetitions)
                writing, reading = self._pairs([NEW, cell])
                yield NEW, writing
                yield cell, reading

    def _settled(self) -> Iterator[tuple[Cell, Pair]]:
        self._settle()
        for number in range(self._plan.repetitions):
            for cell in SETTLED:
                self._tell(cell.where, 0.4 + 0.2 * number / self._plan.repetitions)
                yield cell, self._pairs([cell])[0]

    def _small_new(self) -> Iterator[tuple[Cell, Pair]]:
        for number in range(self._plan.repetitions):
            for cell in SMALL_NEW:
                self._tell(cell.where, 0.9 + 0.1 * number / self._plan.repetitions)
                yield cell, self._pairs([cell])[0]

    def _settle(self) -> None:
        """Reads until LevelDB compacts nothing more. The rival gets the same reads, after a vacuum."""
        self._rival.database.settle()
        for _ in range(_MOST_PASSES):
            self._tell("settling", 0.3)
            before = self._compactions()
            self._both([self._corpus.task(Operation.RECOVERED, _BATCH, self._plan.settling // _BATCH)], _AT_ONCE)
            self.settling_reads += self._plan.settling
            if self._compactions() == before:
                return

    def _compactions(self) -> int:
        return sum(log.read_text(errors="replace").count("Compacting ") for log in self._logs)

    def _pairs(self, cells: Sequence[Cell]) -> list[Pair]:
        """Returns one pair for each cell. The vault is measured on all of them in a row, then the rival."""
        tasks = [self._task(cell) for cell in cells]
        both = self._both(tasks, *(cell.at_once for cell in cells))
        return [Pair(_side(task, vault), _side(task, rival)) for task, (vault, rival) in zip(tasks, both, strict=True)]

    def _task(self, cell: Cell) -> Task:
        return self._corpus.task(cell.operation, cell.batch, self._plan.requests[cell.batch], self._hot if cell.hot else None)

    def _both(self, tasks: Sequence[Task], *at_once: int) -> list[tuple[Driving, Driving]]:
        """Drives the vault, then the rival, while the other is idle. Checks that both give the same answers."""
        until_idle(*self._vault.pids(), *self._rival.pids())
        vault, rival = (
            [drive(served, task.operation.path, task.bodies, count) for task, count in zip(tasks, at_once, strict=True)]
            for served in (self._vault, self._rival)
        )
        pairs = list(zip(vault, rival, strict=True))
        for task, (ours, theirs) in zip(tasks, pairs, strict=True):
            self._corpus.settle(task, ours.driven.bodies)
            if list(map(_decode, ours.driven.bodies)) != list(map(_decode, theirs.driven.bodies)):
                raise WrongAnswer(f"it does not hold that both answer alike: {task.operation.value}")
        return pairs


def _side(task: Task, driving: Driving) -> Side:
    latencies = driving.driven.latencies
    return Side(
        values_per_second=task.count / driving.driven.seconds,
        cpu=driving.nodes_cpu / task.count * 1e6,
        client_cpu=driving.client_cpu / task.count * 1e6,
        median_ms=percentile(latencies, 50) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
    )
