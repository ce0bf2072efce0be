"""The load client asks all three nodes, checks what they answer, and reports figures for each phase."""

from __future__ import annotations

import pytest

from bench.http import Lanes, LoadFailed, encode
from bench.load import Sizes, measure
from chaos.cluster import NODES, Cluster


def test_it_measures_every_phase(cluster: Cluster) -> None:
    report = measure(cluster, Sizes(values=3_000, singles=12))
    assert [(phase.name, phase.at_once) for phase in report.phases] == [
        ("new", 6),
        ("repeated", 6),
        ("recovered", 6),
        ("single new", 1),
        ("single recovered", 1),
        ("single new", 16),
        ("single recovered", 16),
    ]
    assert all(phase.values_per_second > 0 and 0 < phase.median_ms <= phase.p99_ms for phase in report.phases)
    assert report.rss_mib.keys() == set(NODES)


def test_it_stops_at_an_answer_that_is_none(cluster: Cluster) -> None:
    addresses = [node.address for node in cluster.nodes.values()]
    with Lanes(addresses, 1) as lanes, pytest.raises(LoadFailed, match="401"):
        lanes.drive([encode("/tokenize", "no key", b"{}")])
