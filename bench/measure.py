"""A run: takes each measurement of the vault between two of the floor, and repeats the whole plan several times.

The speed of a shared machine varies from minute to minute, and CPU seconds vary with it: cores share a cache, and the clock
frequency drops. Measurements within the same seconds are slowed alike, so the ratio of vault to floor is what counts.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.floor import Floor
from bench.load import Load
from bench.plan import Group, Plan
from bench.processes import Memory, until_idle
from bench.report import Tell
from bench.work import Corpus, Operation, Task

#: The requests that fill and warm up vault and floor: batch size, and requests at once.
_BATCH, _AT_ONCE = 1_000, 6


@dataclass(frozen=True, slots=True)
class FloorSample:
    """One measurement of the floor, one request after another. CPU in seconds: the loops, and LevelDB's compactions."""

    values: int
    seconds: float
    loop_cpu: float
    compaction_cpu: float

    @property
    def cpu(self) -> float:
        return self.loop_cpu + self.compaction_cpu


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of the vault, and of the floor before and after it. ``latencies``: of each request, in seconds.

    ``disk_bytes``: of one store, which holds ``records``.
    """

    operation: Operation
    batch: int
    at_once: int
    values: int
    seconds: float
    latencies: array[float]
    nodes_cpu: float
    client_cpu: float
    floors: tuple[FloorSample, FloorSample]
    memory: Memory
    disk_bytes: float
    records: int


class Bench:
    """Runs a plan on a cluster and on the floor. ``tell`` is called with the next measurement and the share done."""

    def __init__(self, load: Load, floor: Floor, plan: Plan, tell: Tell) -> None:
        self._load = load
        self._plan = plan
        self._tell = tell
        self._corpus = Corpus(plan.stride, seed=1)
        self._floor = floor
        self._floor_corpus = Corpus(plan.stride, seed=2)
        self._floor_calls = {
            Operation.NEW: floor.new,
            Operation.REPEATED: floor.repeated,
            Operation.RECOVERED: floor.recovered,
            Operation.COLD: floor.recovered,
        }

    def run(self) -> list[Sample]:
        """Runs the plan. Raises LoadFailed, WrongAnswer, FloorBroken: a run with a bad answer has no figures."""
        self._tell("filling", 0.0)
        self._unmeasured(Operation.NEW, self._plan.prefill)
        rounds = [group for _ in range(self._plan.repetitions) for group in self._plan.groups]
        samples: list[Sample] = []
        previous = None
        for done, group in enumerate(rounds):
            self._tell(f"{group.operation.value}, batches of {group.batch:,}", done / len(rounds))
            if group.operation not in (previous, Operation.COLD):
                self._unmeasured(Operation.RECOVERED, self._plan.warm_up)
            previous = group.operation
            try:
                samples += self._measure(group)
            except Exception as error:
                repetition = done // len(self._plan.groups) + 1
                error.add_note(f"while measuring: {group.operation.value}, batches of {group.batch:,}, repetition {repetition}")
                raise
        return samples

    def _unmeasured(self, operation: Operation, values: int) -> None:
        requests = values // _BATCH
        task = self._corpus.task(operation, _BATCH, requests)
        self._corpus.settle(task, self._load.drive(task.operation.path, task.bodies, _AT_ONCE).driven.bodies)
        task = self._floor_corpus.task(operation, _BATCH, requests)
        self._floor_corpus.settle(task, list(map(self._floor_calls[operation], task.bodies)))
        until_idle(os.getpid())

    def _measure(self, group: Group) -> Iterator[Sample]:
        before = self._measure_floor(group)
        for at_once in group.at_once:
            requests = self._plan.requests_of(group.batch, at_once)
            task = self._corpus.task(group.operation, group.batch, requests)
            if group.operation is Operation.COLD:
                self._load.restart()
            driving = self._load.drive(task.operation.path, task.bodies, at_once)
            after = self._measure_floor(group)
            self._corpus.settle(task, driving.driven.bodies)
            yield Sample(
                operation=group.operation,
                batch=group.batch,
                at_once=at_once,
                values=task.count,
                seconds=driving.driven.seconds,
                latencies=driving.driven.latencies,
                nodes_cpu=driving.nodes_cpu,
                client_cpu=driving.client_cpu,
                floors=(before, after),
                memory=self._load.memory(),
                disk_bytes=self._load.disk_bytes(),
                records=self._corpus.records,
            )
            before = after

    def _measure_floor(self, group: Group) -> FloorSample:
        task = self._floor_corpus.task(group.operation, group.batch, self._plan.floor_requests[group.batch])
        if group.operation is Operation.COLD:
            self._floor.reopen()
            until_idle(os.getpid())
        sample, answers = _time(self._floor_calls[group.operation], task)
        self._floor_corpus.settle(task, answers)
        return sample


def _time(call: Callable[[bytes], bytes], task: Task) -> tuple[FloorSample, list[bytes]]:
    others = _cpu_of_other_threads()
    begun, cpu = time.perf_counter(), time.thread_time()
    answers = [call(body) for body in task.bodies]
    seconds, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    until_idle(os.getpid())
    return FloorSample(task.count, seconds, cpu, max(0.0, _cpu_of_other_threads() - others)), answers


def _cpu_of_other_threads() -> float:
    return time.process_time() - time.thread_time()
