"""``bin/bench tls``: sends the same requests in turn to two clusters, one with its API over plain HTTP, the other over TLS.

Requests are new, repeated and recovered values, in batches of 1,000 and singly. The nodes of both clusters use TLS between them.
The client is that of the other benchmarks, with Python's TLS; the report shows its CPU apart, since it competes with the nodes.
"""

import itertools
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.load import OWNER, Driving, Load
from bench.report import Account, Check, Report, Table, Tell, today
from bench.work import Corpus, Operation
from chaos.testbed.cluster import Cluster

#: The most nodes' CPU for a batch with TLS, as a multiple of that without. A rate would mostly measure the machine's other work.
_MOST = 1.10


@dataclass(frozen=True, slots=True)
class TlsPlan:
    """``batches`` of 1,000 values and ``singles`` in each round; the first round warms up and does not count."""

    name: str = "tls"
    batches: int = 25
    singles: int = 800
    rounds: int = 8


class Cost(msgspec.Struct, frozen=True):
    """Medians: values a second, and the CPU per value in microseconds, of all nodes and of the client."""

    rate: float
    nodes: float
    client: float


class Row(msgspec.Struct, frozen=True):
    operation: str
    batch: int
    at_once: int
    plain: Cost
    tls: Cost

    @property
    def times(self) -> float:
        """The CPU of all nodes with TLS, as a multiple of that without."""
        return self.tls.nodes / self.plain.nodes


class TlsReport(Report, frozen=True):
    rows: list[Row]

    def account(self) -> Account:
        columns = {
            "operation": "{0.operation}, {0.batch:,} at a time, {0.at_once} at once",
            "plain": "{0.plain.rate:,.0f}/s",
            "TLS": "{0.tls.rate:,.0f}/s",
            "nodes' µs": "{0.plain.nodes:.1f}",
            "nodes' µs, TLS": "{0.tls.nodes:.1f}",
            "ratio": "{0.times:.2f}",
            "client's µs": "{0.plain.client:.2f}",
            "client's µs, TLS": "{0.tls.client:.2f}",
        }
        checks = [
            Check.of(f"{row.operation} in batches: nodes' CPU with TLS relative to plain HTTP", row.times, "≤", _MOST, ".2f")
            for row in self.rows
            if row.batch > 1
        ]
        sentences = ["CPU is per value.", self.occasion]
        return Account([Table.of("TLS of the API", self.rows, columns)], checks, sentences)


@dataclass(frozen=True, slots=True)
class _Kind:
    operation: Operation
    batch: int
    at_once: int


_KINDS = (
    *(_Kind(operation, 1000, 6) for operation in (Operation.NEW, Operation.REPEATED, Operation.RECOVERED)),
    *(_Kind(operation, 1, 16) for operation in (Operation.NEW, Operation.RECOVERED)),
)


class _Measured(NamedTuple):
    values: int
    driving: Driving


def run(plan: TlsPlan, directory: Path, tell: Tell) -> TlsReport:
    """Runs a plan. Raises LoadFailed for an answer that is not 200, WrongAnswer for a wrong one."""
    samples: dict[_Kind, dict[bool, list[_Measured]]] = {kind: {False: [], True: []} for kind in _KINDS}
    with ExitStack() as stack:
        loads: dict[bool, Load] = {}
        for tls in (False, True):
            cluster = stack.enter_context(Cluster.create(directory / ("tls" if tls else "plain"), (OWNER,), tls=tls))
            cluster.bring_up()
            loads[tls] = Load(cluster)
        corpora = {tls: Corpus(stride=1, seed=1) for tls in loads}
        for number in range(plan.rounds):
            tell("rounds", number / plan.rounds)
            for tls, kind in itertools.product((False, True) if number % 2 else (True, False), _KINDS):
                task = corpora[tls].task(kind.operation, kind.batch, plan.batches if kind.batch > 1 else plan.singles)
                driving = loads[tls].drive(kind.operation.path, task.bodies, kind.at_once)
                corpora[tls].settle(task, driving.driven.bodies)
                if number:
                    samples[kind][tls].append(_Measured(task.count, driving))
    rows = [
        Row(kind.operation.value, kind.batch, kind.at_once, _cost(of[False]), _cost(of[True])) for kind, of in samples.items()
    ]
    return TlsReport(*today(), plan.name, rows)


def _cost(samples: Sequence[_Measured]) -> Cost:
    return Cost(
        statistics.median(values / driving.driven.seconds for values, driving in samples),
        statistics.median(driving.nodes_cpu / values * 1e6 for values, driving in samples),
        statistics.median(driving.client_cpu / values * 1e6 for values, driving in samples),
    )
