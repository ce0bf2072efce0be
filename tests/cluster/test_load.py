"""The benchmark against real nodes: every operation is measured, the right processes are charged, and a bad answer ends a run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import bench.http
from bench.floor import Floor
from bench.http import Lanes, LoadFailed, encode
from bench.load import Load
from bench.measure import Bench
from bench.plan import Group, Plan
from bench.work import Operation
from chaos.testbed.cluster import Cluster

#: All that a run does, as little of it as there can be.
_TINY = Plan(
    name="tiny",
    groups=tuple(Group(operation, 10, (1, 2)) for operation in Operation),
    repetitions=2,
    prefill=1_000,
    warm_up=1_000,
    requests={10: 4},
    floor_requests={10: 3},
)


def test_it_measures_every_cell_of_a_plan(own_cluster: Cluster, tmp_path: Path) -> None:
    floor = Floor(tmp_path / "floor")
    told: list[tuple[str, float]] = []
    samples = Bench(Load(own_cluster), floor, _TINY, lambda doing, done=0.0: told.append((doing, done))).run()
    floor.close()
    cells = [(operation, at_once) for operation in Operation for at_once in (1, 2)]
    assert [(sample.operation, sample.at_once) for sample in samples] == cells * 2
    assert [done for _, done in told] == [0, *(number / 8 for number in range(8))]
    for sample in samples:
        assert sample.values == 40
        assert len(sample.latencies) == 4
        assert all(0 < latency <= sample.seconds for latency in sample.latencies)
        assert min(sample.nodes_cpu, sample.client_cpu, *(floor.cpu for floor in sample.floors)) > 0
        assert sample.memory.own > 1
    assert samples[-1].records == 1_000 + 2 * 2 * 40
    assert samples[-1].disk_bytes > samples[-1].records * 60


def test_a_connection_that_was_idle_is_not_used_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes close those. Here none is kept at all, so that each request has to find a new one."""
    monkeypatch.setattr("bench.http._KEPT_SECONDS", 0.0)
    connect, opened = bench.http._connect, []
    monkeypatch.setattr("bench.http._connect", lambda address: opened.append(address) or connect(address))
    addresses = [node.address for node in cluster.nodes.values()]
    request = encode("/tokenize", cluster.api_key("bench"), b'{"values":["1"]}')
    with closing(Lanes(addresses, 2)) as lanes:
        driven = lanes.drive([request] * 10)
    assert len(driven.bodies) == 10
    assert len(set(driven.bodies)) == 1
    assert len(opened) == 2 * len(addresses) + 10


def test_it_stops_at_an_answer_that_is_none(cluster: Cluster) -> None:
    addresses = [node.address for node in cluster.nodes.values()]
    with closing(Lanes(addresses, 1)) as lanes, pytest.raises(LoadFailed, match="401"):
        lanes.drive([encode("/tokenize", "no key", b"{}")])
