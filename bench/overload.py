"""``bin/bench overload``: how a cluster behaves under several times its capacity, and afterwards.

    younger    a closed loop of 16 requests at once, which measures capacity
    before     an open loop at a third of capacity
    overload   an open loop at a multiple of capacity
    after      as ``before``, without a pause
    older      the closed loop again

A larger store costs more per record, mainly for compactions, and each phase makes the store larger. So capacity is the mean of
the closed loops before and after the overload, just as the floor is measured before and after each sample (measure.py).

The client is on the same machine, and an open loop at a multiple of capacity uses more of it than the closed loop does. On its
own machine the client would leave this CPU to the nodes. So the report also shows CPU time: the cost of an answer to the nodes,
refused requests included, and its cost at capacity. The target applies to the plain share of capacity.

A node has to refuse excess requests at almost no cost, before it reads or processes them, and has to answer every request that it
admits in time, or the work is wasted. So under overload it should do nearly as much as at capacity, answer admitted requests
within a bound, keep to its memory, and recover as soon as the load ends.
"""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.http import encode
from bench.load import OWNER, Load, Peak
from bench.openloop import OpenLoop, Run
from bench.report import Account, Check, Report, Table, Tell, percentile, today
from bench.work import Corpus, Operation, TokensGiven, WrongAnswer
from chaos.testbed.cluster import NODES, Cluster

BATCH = 100
#: The least goodput under overload: answers with 200, as a share of capacity.
LEAST_GOODPUT = 0.8
#: An admitted request waits for the requests admitted before it. By Little's law, the longest wait is the number of all places of
#: all nodes, divided by the rate at which they become free. The bound is this many times that wait.
MOST_QUEUE = 2.0
#: The most MiB by which a node's peak memory may exceed its memory before.
MOST_RISE = 100.0
#: The most that the p99 of ``after`` may be, from its first request on, as a multiple of that of ``before``; and a p99, in
#: seconds, that never counts as slow.
MOST_SLOWER, NEVER_SLOW = 3.0, 0.050

_AT_ONCE = 16
#: The rate before and after, as a share of the younger capacity. It must be low for the older capacity too, perhaps half of that.
_CALM = 1 / 3
#: The least number of requests of a closed loop.
_LEAST = 300
_PREFILL = 20_000
_MEMORY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """``times``: the overload, as a multiple of capacity. ``seconds``: of each phase."""

    name: str = "overload"
    times: float = 3.0
    seconds: float = 10.0


_given = msgspec.json.Decoder(TokensGiven).decode


class Capacity(msgspec.Struct, frozen=True):
    """Requests a second, and the nodes' CPU for each in milliseconds."""

    goodput: float
    cpu_each_ms: float


class Phase(msgspec.Struct, frozen=True):
    """Requests a second that were sent, and that were answered with 200; latencies of the latter in milliseconds.

    ``cpu_each_ms``: the nodes' CPU per answer with 200, refusals included. ``nodes_cores`` and ``client_cores``: the average
    number of cores that they kept busy.
    """

    name: str
    offered: float
    goodput: float
    median_ms: float
    p99_ms: float
    statuses: dict[str, int]
    unsent: int
    broken: int
    most_mib: float
    cpu_each_ms: float
    nodes_cores: float
    client_cores: float


class Overload(Report, frozen=True):
    """``places``: the number of requests that all nodes together take at once."""

    batch: int
    times: float
    younger: Capacity
    older: Capacity
    places: int
    phases: list[Phase]

    @property
    def capacity(self) -> Capacity:
        """The mean of both capacities: that of the store in the middle of the run."""
        younger, older = self.younger, self.older
        return Capacity((younger.goodput + older.goodput) / 2, (younger.cpu_each_ms + older.cpu_each_ms) / 2)

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    def account(self) -> Account:
        capacity, younger, older = self.capacity, self.younger, self.older
        told = (
            f"{self.occasion}: batches of {self.batch}; capacity {capacity.goodput:.0f} requests/s "
            f"(before {younger.goodput:.0f}, afterwards {older.goodput:.0f}), {capacity.cpu_each_ms:.2f} ms of nodes' CPU each."
        )
        return Account([Table.of("Phases", self.phases, _COLUMNS)], _checks(self), [told])


def run(plan: OverloadPlan, place: Path, tell: Tell) -> Overload:
    """Measures a new cluster, in an empty directory."""
    with Cluster.create(place / "cluster", (OWNER,)) as cluster:
        cluster.bring_up()
        tell("what the cluster can do, and several times that")
        overload = measure(cluster, times=plan.times, seconds=plan.seconds)
        cluster.stop()
    return overload


def measure(cluster: Cluster, *, times: float, seconds: float) -> Overload:
    """Measures a running cluster. Raises LoadFailed, WrongAnswer."""
    load, corpus = Load(cluster), Corpus(stride=1, seed=1)
    fill = corpus.task(Operation.NEW, 1_000, _PREFILL // 1_000)
    corpus.settle(fill, load.drive("/tokenize", fill.bodies, _AT_ONCE).driven.bodies)
    requests = max(_LEAST, round(seconds * _capacity(load, corpus, _LEAST).goodput))
    younger = _capacity(load, corpus, requests)
    phases = []
    with closing(OpenLoop([cluster.nodes[name].address for name in NODES])) as loop:
        for name, share in (("before", _CALM), ("overload", times), ("after", _CALM)):
            rate = share * younger.goodput
            task = corpus.task(Operation.NEW, BATCH, max(1, round(rate * seconds)))
            encoded = [encode("/tokenize", cluster.api_key(OWNER), body) for body in task.bodies]
            gc.freeze()  # scanning all these for garbage would delay due requests
            peak = Peak(cluster, lambda memory: memory.own, _MEMORY_SECONDS)
            with peak.watching():
                nodes, client = load.nodes_cpu(), time.thread_time()
                run = loop.run(encoded, rate)
                nodes, client = load.nodes_cpu() - nodes, time.thread_time() - client
            _check(run, task.values)
            phases.append(_phase(name, rate, seconds, run, peak.most.own, nodes, client))
    gc.unfreeze()
    places = sum(cluster.api(name).get("/limits").body["in_flight"] for name in NODES)
    return Overload(*today(), "overload", BATCH, times, younger, _capacity(load, corpus, requests), places, phases)


def _capacity(load: Load, corpus: Corpus, requests: int) -> Capacity:
    closed = corpus.task(Operation.NEW, BATCH, requests)
    driving = load.drive("/tokenize", closed.bodies, _AT_ONCE)
    return Capacity(requests / driving.driven.seconds, driving.nodes_cpu / requests * 1e3)


def _check(run: Run, values: Sequence[Sequence[str]]) -> None:
    """Raises WrongAnswer for a wrong answer with status 200, LoadFailed for a refusal outside the API's contract."""
    for answer in run.accepted():
        if len(set(_given(answer.body).tokens)) != len(values[answer.request]):
            raise WrongAnswer("it does not hold that each new value has a token of its own")


def _phase(name: str, rate: float, seconds: float, run: Run, most_mib: float, nodes_cpu: float, client_cpu: float) -> Phase:
    latencies = [answer.seconds for answer in run.accepted()]
    in_time = sum(answer.due + answer.seconds <= seconds for answer in run.accepted())
    return Phase(
        name=name,
        offered=rate,
        goodput=in_time / seconds,
        median_ms=percentile(latencies, 50) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
        statuses={str(status): count for status, count in sorted(run.statuses().items())},
        unsent=run.unsent,
        broken=run.broken,
        most_mib=most_mib,
        cpu_each_ms=nodes_cpu / len(latencies) * 1e3,
        nodes_cores=nodes_cpu / run.seconds,
        client_cores=client_cpu / run.seconds,
    )


def _checks(overload: Overload) -> list[Check]:
    before, during, after = (overload.phase(name) for name in ("before", "overload", "after"))
    capacity = overload.capacity
    share = during.goodput / capacity.goodput
    slow = max(NEVER_SLOW * 1e3, MOST_SLOWER * before.p99_ms)
    longest = round(MOST_QUEUE * overload.places / during.goodput * 1e3)
    by_cpu = capacity.cpu_each_ms / during.cpu_each_ms
    accepted = f"p99 of the accepted requests, with {overload.places} places"
    return [
        Check(
            f"{overload.times:g} times the load: answers with 200, as a share of capacity ({by_cpu:.0%} by the nodes' CPU time)",
            f"{share:.0%}",
            f"≥ {LEAST_GOODPUT:.0%}",
            share >= LEAST_GOODPUT,
        ),
        Check.of(accepted, during.p99_ms, "≤", longest, ".0f", " ms"),
        Check.of("rise of a node's memory", during.most_mib - before.most_mib, "≤", MOST_RISE, ".0f", " MiB"),
        Check(
            f"p99 after the overload, from the first request on; before it {before.p99_ms:.0f} ms",
            f"{after.p99_ms:.0f} ms",
            f"≤ {slow:.0f} ms, each answered with 200",
            after.p99_ms <= slow and set(after.statuses) == {"200"},
        ),
    ]


def _answers(phase: Phase) -> str:
    answers = ", ".join(f"{count:,} of {status}" for status, count in phase.statuses.items())
    return answers + (f", {phase.unsent:,} unsent, {phase.broken:,} broken" if phase.unsent or phase.broken else "")


_COLUMNS: dict[str, str | Callable[[Phase], str]] = {
    "phase": "{0.name}",
    "offered/s": "{0.offered:.0f}",
    "200/s": "{0.goodput:.0f}",
    "median ms": "{0.median_ms:.1f}",
    "p99 ms": "{0.p99_ms:.1f}",
    "MiB": "{0.most_mib:.0f}",
    "CPU ms": "{0.cpu_each_ms:.2f}",
    "cores of nodes": "{0.nodes_cores:.2f}",
    "cores of client": "{0.client_cores:.2f}",
    "answers": _answers,
}
