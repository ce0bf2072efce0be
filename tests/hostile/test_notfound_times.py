"""The benchmark that times "not found", run with few requests: its answers are checked, its times are not."""

import itertools
from collections.abc import Iterator

import pytest

from bench import notfound
from bench.notfound import OTHER, OWNERS, SHAPES, Kind, measure
from bench.work import WrongAnswer
from chaos.testbed.cluster import Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.create(tmp_path_factory.mktemp("vault") / "cluster", OWNERS) as made:
        made.bring_up()
        yield made


def test_every_kind_is_asked_for_as_often_and_every_pair_compared(cluster: Cluster) -> None:
    report = measure(cluster, inputs=20, seed=1)
    shapes = [shape.batch for shape in SHAPES]
    rows = [(row.batch, row.kind, row.requests) for row in report.rows]
    assert rows == [(batch, kind, 20) for batch in shapes for kind in Kind]
    pairs = list(itertools.combinations(Kind, 2))
    assert [(pair.batch, pair.kinds) for pair in report.pairs] == [(batch, pair) for batch in shapes for pair in pairs]
    assert all(0 < row.median_ms <= row.p95_ms <= row.p99_ms for row in report.rows)
    assert all(-1 <= pair.cliffs_delta.size <= 1 for pair in report.pairs)


def test_a_token_that_is_found_ends_the_run(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if owners were not told apart: the owner that asks is the one that was given the tokens."""
    monkeypatch.setattr(notfound, "OWNER", OTHER)
    monkeypatch.setattr(notfound, "SHAPES", SHAPES[1:])
    with pytest.raises(WrongAnswer, match="not answered with not_found"):
        measure(cluster, inputs=10, seed=1)
