"""The chaos harness end to end: one short run on correct nodes, and one on faulty nodes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chaos.summary import Summary, Verdict
from chaos.testbed import history
from chaos.testbed.history import READER, Complete, Convergence, FaultBegan, FaultEnded, Invoke, Outcome
from tests import ROOT

#: Exit code of a run that saw no violation, but on a machine too busy with other work to judge how long things took.
TOO_BUSY = 4
FAMILIES = ("kill", "pause", "partition", "torn")


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs what bin/chaos runs, without its set-up."""
    command = [sys.executable, "-P", "-m", "chaos", *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=300, check=False)


def test_a_short_run_breaks_nodes_and_finds_nothing_wrong(tmp_path: Path) -> None:
    directory = tmp_path / "report"
    done = chaos("run", "--minutes", "0.3", "--seed", "4", "--faults", ",".join(FAMILIES), "--report", str(directory))
    assert done.returncode in (0, TOO_BUSY), done.stdout + done.stderr
    assert done.stdout.startswith("seed 4: 18 s of work, ")
    summary = msgspec.json.decode((directory / "summary.json").read_bytes(), type=Summary)
    expected = (Verdict.UNKNOWN, True, None) if done.returncode == TOO_BUSY else (Verdict.VALID, False, None)
    assert (summary.verdict, summary.too_busy, summary.violation) == expected
    assert summary.machine is not None
    assert summary.fault_counts
    assert summary.final.tokens * len(summary.final.ways) == summary.final.reads > 0
    assert len(summary.final.ways) == 9

    records = history.read(directory / "history.jsonl")
    asked = [record for record in records if isinstance(record, Invoke)]
    answered = {record.op for record in records if isinstance(record, Complete) and record.outcome is Outcome.OK}
    assert {record.node for record in asked if record.op in answered} == {"n1", "n2", "n3"}
    assert len({record.owner for record in asked}) > 1
    assert sum(len(record.given) for record in asked if record.client == READER and record.op in answered) >= summary.final.reads
    assert any(isinstance(record, Convergence) for record in records)
    began = {record.number for record in records if isinstance(record, FaultBegan)}
    assert began == {record.number for record in records if isinstance(record, FaultEnded)} == set(range(len(summary.faults)))
    assert (directory / "report.html").stat().st_size
    checked = chaos("check", str(directory / "history.jsonl"))
    assert (checked.returncode, re.findall(": ([a-z]+): valid", checked.stdout)) == (0, ["rules", "linearizability"])
    assert sorted(path.name for path in (directory / "cluster" / "logs").iterdir()) == ["n1.log", "n2.log", "n3.log"]


def test_nodes_that_are_broken_are_noticed() -> None:
    done = chaos("mutants", "--seconds", "6", "another-owner")
    assert done.returncode == 0, done.stdout + done.stderr
    row = r"another-owner +seed 1: [a-z- ]+, after \d+\.\d s +\d+ s +owner isolation: a key is another's\n"
    assert re.fullmatch(row + r"1 of 1 mutants noticed, in \d+ minutes\n", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--faults", "kill,thunder"], "no such fault: thunder; expected kill, "),
        (["run", "--report", str(ROOT / "chaos")], "is not empty; name a new directory"),
        (["mutants", "no-brain"], "no such mutant: no-brain; expected no-sync, "),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments: list[str], words: str) -> None:
    done = chaos(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"bin/chaos: .*{re.escape(words)}.*\n", done.stderr), done.stderr
