"""bin/bench tls: its client over TLS, and how its report is computed. The times of such a small run mean nothing."""

from pathlib import Path

import pytest

from bench.report import today
from bench.tls import Cost, Row, TlsPlan, TlsReport, run


@pytest.mark.slow
def test_both_clusters_are_asked_and_answer(tmp_path: Path) -> None:
    report = run(TlsPlan(batches=2, singles=20, rounds=2), tmp_path, lambda doing, done=0.0: None)
    assert [(row.operation, row.batch) for row in report.rows] == [
        *(("new", 1000), ("repeated", 1000), ("recovered", 1000)),
        *(("new", 1), ("recovered", 1)),
    ]
    assert all(row.plain.rate > 0 and row.tls.rate > 0 for row in report.rows)


def test_a_tenth_more_is_the_most_for_batches() -> None:
    def row(batch: int, nodes: float) -> Row:
        return Row("new", batch, 6, Cost(1000.0, 10.0, 1.0), Cost(1000.0, nodes, 1.0))

    for nodes, held in ((10.9, True), (11.1, False)):
        account = TlsReport(*today(), "tls", [row(1000, nodes), row(1, 20.0)]).account()
        assert account.holds is held
        assert len(account.checks) == 1
