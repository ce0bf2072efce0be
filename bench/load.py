"""What a cluster of three nodes on this machine does a second: new, repeated and recovered values, in batches and singly.

    python -m bench.load [--values N] [--singles N] [--directory DIR] [--json FILE]

Client and nodes share the machine, so their CPU seconds are part of the answer. The directory decides which disk is synced.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.http import Driven, Lanes, LoadFailed, encode
from chaos.cluster import NODES, Cluster

OWNER = "bench"
BATCH, BATCHES_AT_ONCE = 1_000, 6
SINGLES_AT_ONCE = (1, 16)
_TICKS = os.sysconf("SC_CLK_TCK")


class Tokens(msgspec.Struct):
    tokens: list[str]


class Result(msgspec.Struct):
    status: str
    value: str | None = None


class Results(msgspec.Struct):
    results: list[Result]


class Single(msgspec.Struct):
    token: str
    value: str


class Measured(msgspec.Struct, frozen=True):
    """One phase. Rates are values a second; latencies milliseconds a request; CPU seconds of the client, and of all nodes."""

    name: str
    batch: int
    at_once: int
    requests: int
    values_per_second: float
    median_ms: float
    p99_ms: float
    client_cpu_seconds: float
    nodes_cpu_seconds: float


class Report(msgspec.Struct, frozen=True):
    """A whole run; ``rss_mib`` of each node at its end."""

    cores: int
    directory: str
    phases: list[Measured]
    rss_mib: dict[str, float]


class Bench:
    """Phases against one running cluster. A phase's name, batch size and number of requests at once go with its figures."""

    def __init__(self, cluster: Cluster) -> None:
        self._addresses = [cluster.nodes[name].address for name in NODES]
        self._pids = {name: cluster.pid(name) for name in NODES}
        self._key = cluster.api_key(OWNER)
        self.phases: list[Measured] = []

    def phase(self, name: str, path: str, bodies: Sequence[object], batch: int, at_once: int) -> list[bytes]:
        """Sends the bodies, JSON-encoded, to a path; answers what came back."""
        requests = [encode(path, self._key, msgspec.json.encode(body)) for body in bodies]
        with Lanes(self._addresses, at_once) as lanes:
            client, nodes = cpu_seconds("self"), self._nodes_cpu()
            driven = lanes.drive(requests)
            client, nodes = cpu_seconds("self") - client, self._nodes_cpu() - nodes
        self.phases.append(_measured(name, driven, batch, at_once, client, nodes))
        print(_row(self.phases[-1]), flush=True)
        return driven.bodies

    def rss_mib(self) -> dict[str, float]:
        return {name: resident_mib(pid) for name, pid in self._pids.items()}

    def _nodes_cpu(self) -> float:
        return sum(map(cpu_seconds, self._pids.values()))


def bulk(bench: Bench, count: int) -> None:
    """Batches: the same values twice, then their tokens, in another order, back."""
    values = _new_values(count)
    batches = [values[first : first + BATCH] for first in range(0, count, BATCH)]
    bodies = [{"values": batch} for batch in batches]
    first = bench.phase("new", "/tokenize", bodies, BATCH, BATCHES_AT_ONCE)
    again = bench.phase("repeated", "/tokenize", bodies, BATCH, BATCHES_AT_ONCE)
    tokens = [token for body in first for token in msgspec.json.decode(body, type=Tokens).tokens]
    _check("the same values have the same tokens", tokens[-BATCH:], msgspec.json.decode(again[-1], type=Tokens).tokens)
    order = random.Random(count).sample(range(count), count)
    asked = [{"tokens": [tokens[index] for index in order[first : first + BATCH]]} for first in range(0, count, BATCH)]
    answers = bench.phase("recovered", "/detokenize", asked, BATCH, BATCHES_AT_ONCE)
    recovered = [result.value for result in msgspec.json.decode(answers[-1], type=Results).results]
    _check("the values come back", recovered, [values[index] for index in order[count - len(recovered) :]])


def single(bench: Bench, count: int, at_once: int) -> None:
    """One value a request."""
    values = _new_values(count)
    answers = bench.phase("single new", "/tokenize", [{"values": [value]} for value in values], 1, at_once)
    tokens = [msgspec.json.decode(answer, type=Tokens).tokens[0] for answer in answers]
    answers = bench.phase("single recovered", "/detokenize", [{"token": token} for token in tokens], 1, at_once)
    _check("the values come back", [msgspec.json.decode(answer, type=Single).value for answer in answers], values)


def _new_values(count: int) -> list[str]:
    """Of the length of a social security number or a name; never seen by any cluster."""
    prefix = secrets.token_hex(3)
    return [f"{prefix}-{number:08}" for number in range(count)]


def _check(what: str, got: Sequence[object], wanted: Sequence[object]) -> None:
    if got != wanted:
        raise LoadFailed(f"not so: {what}")


def cpu_seconds(pid: int | str) -> float:
    """User and system time of all threads of a process, from /proc (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _measured(name: str, driven: Driven, batch: int, at_once: int, client: float, nodes: float) -> Measured:
    return Measured(
        name=name,
        batch=batch,
        at_once=at_once,
        requests=len(driven.latencies),
        values_per_second=round(len(driven.latencies) * batch / driven.seconds),
        median_ms=round(statistics.median(driven.latencies) * 1000, 2),
        p99_ms=round(statistics.quantiles(driven.latencies, n=100, method="inclusive")[98] * 1000, 2),
        client_cpu_seconds=round(client, 2),
        nodes_cpu_seconds=round(nodes, 2),
    )


_HEADER = f"{'':<18}{'batch':>7}{'at once':>9}{'values/s':>11}{'median ms':>11}{'p99 ms':>9}{'CPU s: client':>15}{'nodes':>8}"


def _row(phase: Measured) -> str:
    return (
        f"{phase.name:<18}{phase.batch:>7,}{phase.at_once:>9}{phase.values_per_second:>11,.0f}{phase.median_ms:>11.2f}"
        f"{phase.p99_ms:>9.2f}{phase.client_cpu_seconds:>15.2f}{phase.nodes_cpu_seconds:>8.2f}"
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many values go in batches (a multiple of the batch), and how many singly."""

    values: int
    singles: int


def measure(cluster: Cluster, sizes: Sizes) -> Report:
    """All phases against a running cluster, printed as they end."""
    bench = Bench(cluster)
    print(_HEADER)
    bulk(bench, sizes.values)
    for at_once in SINGLES_AT_ONCE:
        single(bench, sizes.singles, at_once)
    rss = {name: round(mib, 1) for name, mib in bench.rss_mib().items()}
    print("resident: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in rss.items()))
    return Report(os.cpu_count() or 1, str(cluster.directory), bench.phases, rss)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Measures a cluster that it starts, and stops it.")
    parser.add_argument("--values", type=int, default=300_000, help=f"in batches; rounded up to a multiple of {BATCH:,}")
    parser.add_argument("--singles", type=int, default=3_000, help="one a request, for each number of requests at once")
    parser.add_argument("--directory", type=Path, help="where the cluster is made (default: the system's temporary directory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    chosen = parser.parse_args(arguments)
    sizes = Sizes(max(1, -(-chosen.values // BATCH)) * BATCH, max(2, chosen.singles))
    with (
        tempfile.TemporaryDirectory(prefix="quorumvault-bench-", dir=chosen.directory) as place,
        Cluster.create(Path(place) / "cluster", (OWNER,)) as cluster,
    ):
        cluster.start()
        cluster.wait_ready(reachable=3)
        report = measure(cluster, sizes)
        cluster.stop()
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
