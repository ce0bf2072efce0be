"""``bin/bench overload``: what becomes of a cluster that is asked for several times of what it can do, and of it afterwards.

    younger    a closed loop of 16 requests at once: what the cluster can do
    before     an open loop at a third of that
    overload   an open loop at a multiple of it
    after      as before, at once
    older      the closed loop again

A store that has become larger costs more a record, compactions above all, and each phase leaves it larger than the one before. So
capacity is what the cluster does before and afterwards, half and half: as a floor is taken before and after what it is for
(measure.py). The overload lies in the middle.

The client is on the same machine, and an open loop at a multiple of capacity takes more of it than the closed one: what it takes
would be the nodes' if it were elsewhere. So CPU time is told too: what an answer cost the nodes, with all that they refused
beside it, and what it cost them at capacity. It is the plain share that is judged.

A node has to turn away what is too much at next to no cost, before it has read or worked on it; whatever it lets in it has to
answer in time, or the work was for nothing. So it should do nearly as much under overload as it can do at all, answer what it
accepts within a bound, keep to its memory, and be as it was as soon as the load goes.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.bodies import TokensGiven
from bench.http import LoadFailed, encode
from bench.load import OWNER, Load
from bench.openloop import OpenLoop, Run
from bench.processes import machine, memory
from bench.report import percentile
from bench.work import Corpus, Operation, WrongAnswer
from chaos.testbed.cluster import NODES, Cluster, ClusterError

BATCH = 100
#: What was answered with 200 in the overload, as a share of capacity.
LEAST_GOODPUT = 0.8
#: What is let in waits for what was let in before it: all places of all nodes, at the pace at which they become free (Little's
#: law), is the longest that a queue makes anybody wait. So many times that is the bound.
MOST_QUEUE = 2.0
#: MiB that a node may have more at its peak than before.
MOST_RISE = 100.0
#: How many times the p99 of before that of after may be, from its first request on; and a floor for what counts as slow.
MOST_SLOWER, NEVER_SLOW = 3.0, 0.050

_AT_ONCE = 16
#: Of the younger capacity, before and after: it has to be little of the older one too, which may be no more than half of that.
_CALM = 1 / 3
#: Requests of a closed loop.
_LEAST = 300
_PREFILL = 20_000
_MEMORY_SECONDS = 0.5

_given = msgspec.json.Decoder(TokensGiven).decode


class Capacity(msgspec.Struct, frozen=True):
    """Requests a second; milliseconds of the nodes' CPU that one took."""

    goodput: float
    cpu_each_ms: float


class Phase(msgspec.Struct, frozen=True):
    """Requests a second that were asked for, and that were answered with 200; times in milliseconds, of those.

    ``cpu_each_ms``: of the nodes' CPU for each of those, refusals included; ``nodes_cores`` and ``client_cores``: how many cores
    they kept busy on average.
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


class Overload(msgspec.Struct, frozen=True):
    """A whole run. ``places``: requests that the nodes take at once, all together."""

    machine: str
    batch: int
    times: float
    younger: Capacity
    older: Capacity
    places: int
    phases: list[Phase]

    @property
    def capacity(self) -> Capacity:
        """Of the store as it was in the middle."""
        younger, older = self.younger, self.older
        return Capacity((younger.goodput + older.goodput) / 2, (younger.cpu_each_ms + older.cpu_each_ms) / 2)

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)


@dataclass(frozen=True, slots=True)
class Verdict:
    held: bool
    text: str


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/bench overload", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=float, default=3.0, metavar="N", help="of capacity (default: 3)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each phase (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data (default: the temporary directory)")
    chosen = parser.parse_args(arguments)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="quorumvault-overload-", dir=chosen.directory) as place,
            Cluster.create(Path(place) / "cluster", (OWNER,)) as cluster,
        ):
            cluster.start()
            cluster.wait_ready(reachable=len(NODES))
            overload = measure(cluster, times=chosen.times, seconds=chosen.seconds)
            cluster.stop()
    except (ClusterError, LoadFailed, WrongAnswer, OSError) as error:
        print(f"bin/bench overload: {error}", file=sys.stderr)
        return 1
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(overload)) + b"\n")
    _show(overload)
    return 0 if all(verdict.held for verdict in judge(overload)) else 1


def measure(cluster: Cluster, *, times: float, seconds: float) -> Overload:
    """Raises LoadFailed, WrongAnswer."""
    load, corpus = Load(cluster), Corpus(stride=1, seed=1)
    fill = corpus.task(Operation.NEW, 1_000, _PREFILL // 1_000)
    corpus.settle(fill, load.drive("/tokenize", fill.bodies, _AT_ONCE).driven.bodies)
    requests = max(_LEAST, round(seconds * _capacity(load, corpus, _LEAST).goodput))
    younger = _capacity(load, corpus, requests)
    phases = []
    with OpenLoop([cluster.nodes[name].address for name in NODES]) as loop:
        for name, share in (("before", _CALM), ("overload", times), ("after", _CALM)):
            rate = share * younger.goodput
            task = corpus.task(Operation.NEW, BATCH, max(1, round(rate * seconds)))
            encoded = [encode("/tokenize", cluster.api_key(OWNER), body) for body in task.bodies]
            gc.freeze()  # to look through all of these for garbage would hold up what is due
            with _Watch(cluster) as watch:
                nodes, client = load.nodes_cpu(), time.thread_time()
                run = loop.run(encoded, rate)
                nodes, client = load.nodes_cpu() - nodes, time.thread_time() - client
            _check(run, task.values)
            phases.append(_phase(name, rate, seconds, run, watch.most, nodes, client))
    gc.unfreeze()
    places = sum(cluster.api(name).get("/limits").body["in_flight"] for name in NODES)
    return Overload(machine(), BATCH, times, younger, _capacity(load, corpus, requests), places, phases)


def _capacity(load: Load, corpus: Corpus, requests: int) -> Capacity:
    closed = corpus.task(Operation.NEW, BATCH, requests)
    driving = load.drive("/tokenize", closed.bodies, _AT_ONCE)
    return Capacity(requests / driving.driven.seconds, driving.nodes_cpu / requests * 1e3)


class _Watch:
    """The most memory that any node has of its own until the block ends, in MiB."""

    def __init__(self, cluster: Cluster) -> None:
        self.most = 0.0
        self._pids = [cluster.pid(name) for name in NODES]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_MEMORY_SECONDS):
            self.most = max(self.most, *(memory(pid).own for pid in self._pids))


def _check(run: Run, values: Sequence[Sequence[str]]) -> None:
    """What was accepted has to be right as ever; what was refused, refused as the contract has it."""
    for answer in run.answered:
        if answer.status == 200:
            if len(set(_given(answer.body).tokens)) != len(values[answer.request]):
                raise WrongAnswer("it does not hold that each new value has a token of its own")
        elif answer.status not in (429, 503):
            raise LoadFailed(f"status {answer.status}: {answer.body[:500].decode(errors='replace')}")


def _phase(name: str, rate: float, seconds: float, run: Run, most_mib: float, nodes_cpu: float, client_cpu: float) -> Phase:
    latencies = [answer.seconds for answer in run.answered if answer.status == 200]
    if not latencies:
        raise LoadFailed(f"{name}: no request was answered with 200")
    in_time = sum(answer.status == 200 and answer.due + answer.seconds <= seconds for answer in run.answered)
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


def judge(overload: Overload) -> list[Verdict]:
    before, during, after = (overload.phase(name) for name in ("before", "overload", "after"))
    capacity = overload.capacity
    share = during.goodput / capacity.goodput
    rise = during.most_mib - before.most_mib
    slow = max(NEVER_SLOW * 1e3, MOST_SLOWER * before.p99_ms)
    longest = MOST_QUEUE * overload.places / during.goodput * 1e3
    return [
        Verdict(
            share >= LEAST_GOODPUT,
            f"{overload.times:g} times the load: {share:.0%} of capacity answered with 200; at least {LEAST_GOODPUT:.0%} "
            f"(by the nodes' CPU time {capacity.cpu_each_ms / during.cpu_each_ms:.0%})",
        ),
        Verdict(
            during.p99_ms <= longest,
            f"99 of 100 that were accepted within {during.p99_ms:.0f} ms; at most {longest:.0f} ms, for {overload.places} places",
        ),
        Verdict(rise <= MOST_RISE, f"a node has at most {rise:.0f} MiB more than before; at most {MOST_RISE:.0f} MiB"),
        Verdict(
            after.p99_ms <= slow and set(after.statuses) == {"200"},
            f"from the first request on after it p99 {after.p99_ms:.0f} ms, before it {before.p99_ms:.0f} ms; "
            f"at most {slow:.0f} ms",
        ),
    ]


def _show(overload: Overload, tell: Callable[[str], None] = print) -> None:
    capacity, younger, older = overload.capacity, overload.younger, overload.older
    tell(
        f"{overload.machine}; batches of {overload.batch}; capacity {capacity.goodput:.0f} requests/s "
        f"(before {younger.goodput:.0f}, afterwards {older.goodput:.0f}), {capacity.cpu_each_ms:.2f} ms of the nodes' CPU each"
    )
    tell(
        f"{'':10}{'offered/s':>10}{'200/s':>8}{'median ms':>11}{'p99 ms':>9}{'MiB':>6}"
        f"{'CPU ms':>8}{'of nodes':>10}{'of client':>11}  answers"
    )
    for phase in overload.phases:
        answers = ", ".join(f"{count:,} of {status}" for status, count in phase.statuses.items())
        extra = f", {phase.unsent:,} unsent, {phase.broken:,} broken" if phase.unsent or phase.broken else ""
        tell(
            f"{phase.name:10}{phase.offered:>10.0f}{phase.goodput:>8.0f}{phase.median_ms:>11.1f}{phase.p99_ms:>9.1f}"
            f"{phase.most_mib:>6.0f}{phase.cpu_each_ms:>8.2f}{phase.nodes_cores:>10.2f}{phase.client_cores:>11.2f}"
            f"  {answers}{extra}"
        )
    for verdict in judge(overload):
        tell(f"{'ok' if verdict.held else 'FAILED'}: {verdict.text}")
