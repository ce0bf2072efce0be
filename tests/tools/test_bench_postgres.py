"""``bin/bench postgres``: the cells of its table, pairs that become medians, and its message where PostgreSQL is missing.

Each run of the benchmark compares all answers: vault and rival have to answer the same requests alike.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import BENCHES, main
from bench.postgres import database
from bench.postgres.database import cpu_of_tree
from bench.postgres.plan import AFTER, NEW, POSTGRES, POSTGRES_PLANS, POSTGRES_SMOKE, SETTLED, SMALL_NEW, PostgresPlan
from bench.postgres.report import Pair, Side, report
from bench.work import Corpus, Operation

CELLS = (NEW, *AFTER, *SETTLED, *SMALL_NEW)


def pair(vault: float, rival: float) -> Pair:
    """So many values per second on each side. A value's CPU time is a million microseconds divided by this rate."""
    return Pair(*(Side(speed, cpu=1e6 / speed, client_cpu=0.1, median_ms=5, p99_ms=10) for speed in (vault, rival)))


@pytest.mark.parametrize("plan", POSTGRES_PLANS.values(), ids=POSTGRES_PLANS)
def test_a_plan_has_enough_pairs_of_value_and_token_for_each_of_its_cells(plan: PostgresPlan) -> None:
    """A batch is drawn from the kept pairs, or from the hot ones, and has no value twice."""
    kept = plan.records // plan.stride
    assert all(cell.batch <= (min(plan.hot, kept) if cell.hot else kept) for cell in CELLS)
    assert {cell.batch for cell in CELLS} == plan.requests.keys()
    assert all(plan.requests[cell.batch] >= cell.at_once for cell in CELLS)


def test_hot_tokens_are_the_same_ones_again_and_again() -> None:
    corpus = Corpus(stride=1, seed=1)
    new = corpus.task(Operation.NEW, 100, 1)
    corpus.settle(new, [b'{"epoch":1,"tokens":[%s]}' % b",".join(b'"%d"' % number for number in range(100))])
    hot = corpus.hot(10)
    asked = {value for _ in range(20) for value in corpus.task(Operation.RECOVERED, 10, 1, hot).values[0]}
    assert len(asked) == len(hot) == 10
    assert len(corpus.hot(1_000)) == 100


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.floats(0.1, 10))
def test_a_ratio_is_the_median_of_pairs_and_a_machine_that_slows_down_does_not_change_it(slow: list[float], times: float) -> None:
    pairs = [pair(1_000 * times / each, 1_000 / each) for each in slow]
    (row,) = report(POSTGRES, "PostgreSQL", 0, {NEW: pairs}).rows
    assert row.ratio == pytest.approx(times)
    assert [float(end) for end in row.span.split("–")] == pytest.approx([times, times], abs=0.0051)  # it has two decimals


def test_one_odd_pair_shows_in_the_range_and_not_in_the_ratio() -> None:
    (row,) = report(POSTGRES, "PostgreSQL", 0, {NEW: [pair(200, 100), pair(100, 100), pair(900, 300)]}).rows
    assert (row.ratio, row.span) == (2, "1.00–3.00")
    assert (row.vault.values_per_second, row.rival.values_per_second) == (200, 100)
    assert (row.vault.cpu, row.rival.cpu) == (5_000, 10_000)


@pytest.mark.parametrize(("plan", "judged"), [(POSTGRES, True), (POSTGRES_SMOKE, False)])
def test_targets_are_told_and_fail_nothing_and_few_records_are_not_judged(plan: PostgresPlan, judged: bool) -> None:
    account = report(plan, "PostgreSQL 15", 7, {cell: [pair(150, 100)] for cell in CELLS}).account()
    assert not account.asserted
    assert {check.judged for check in account.checks} == {judged}
    verdicts = {check.what: check.verdict for check in account.checks}
    assert len(verdicts) == len(CELLS)
    missed = [what for what, verdict in verdicts.items() if verdict == "MISSED"]
    assert missed == ([f"{SETTLED[0].where}: values/s, times PostgreSQL's"] if judged else [])
    assert "loopback" in "\n".join(account.sentences)


def test_rows_come_by_batch_and_within_one_new_values_first() -> None:
    rows = report(POSTGRES, "PostgreSQL 15", 7, {cell: [pair(1, 1)] for cell in reversed(CELLS)}).rows
    assert [row.batch for row in rows] == sorted((row.batch for row in rows), reverse=True)
    firsts = {row.batch: row.what for row in reversed(rows)}
    assert set(firsts.values()) == {"new"}


def test_what_a_process_and_its_children_cost_goes_on_when_a_child_has_ended() -> None:
    """PostgreSQL's own processes come and go: each counts, even after it has ended."""
    spin = "import time\nuntil = time.process_time() + 0.2\nwhile time.process_time() < until: pass\n"
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\nprint(flush=True)\nsys.stdin.read()\n"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_of_tree(process.pid) >= 0.2
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("name", POSTGRES_PLANS)
def test_where_postgresql_is_missing_one_sentence_says_which_package_has_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "INSTALLED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([name, "--directory", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bin/bench {name}: PostgreSQL is not on this machine")
    assert "apt-get install postgresql" in line
    assert list(tmp_path.iterdir()) == []


def test_a_part_alone_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[PostgresPlan] = []
    plan, family = BENCHES["postgres"]

    def measure(plan: PostgresPlan, place: Path, tell: object) -> None:
        plans.append(plan)
        raise database.PostgresError("enough")

    monkeypatch.setitem(BENCHES, "postgres", (plan, family._replace(measure=measure)))  # type: ignore[arg-type]
    assert main(["postgres", "--only", "settled", "--records", "5000", "--repetitions", "2"]) == 1
    assert [(each.runs, each.records, each.repetitions) for each in plans] == [(("settled",), 5_000, 2)]
