"""Copies the same table with the command and with DuckDB alone, seconds apart, so that their ratio is fair on a busy machine.

The nodes are on this machine as well: the command's seconds include their work.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.files import alone
from bench.files.child import CommandFailed, Took, measure
from bench.files.dataset import Dataset, differences
from bench.files.plan import Case, FilesPlan
from bench.report import Tell
from chaos.testbed.cluster import environment, executable


class WrongCopy(Exception):
    """The command's output differs from DuckDB's for the same table, so the run has no figures."""


class _Done(msgspec.Struct):
    """The part of the output of ``quorumvault detokenize --json`` that this module uses."""

    rows: int
    look_ups: int


@dataclass(frozen=True, slots=True)
class CopySample:
    """One copy by each side. ``look_ups``: texts that the command asked the vault about."""

    case: Case
    command: Took
    duckdb: Took
    look_ups: int


class Copies:
    """Runs the copies of a plan. ``variables``: the environment in which the command reaches the nodes."""

    def __init__(self, dataset: Dataset, directory: Path, variables: dict[str, str], tell: Tell) -> None:
        directory.mkdir()
        self._dataset = dataset
        self._directory = directory
        self._variables = variables
        self._tell = tell

    def run(self, plan: FilesPlan) -> list[CopySample]:
        """Runs all copies. Raises CommandFailed, WrongCopy."""
        samples = []
        for case in plan.cases:
            self._tell(f"making {case.rows:,} rows")
            table = self._dataset.table(case)
            for repetition in range(plan.repetitions):
                self._tell(f"{case.rows:,} rows, {case.distinct:,} tokens, repetition {repetition + 1}")
                samples.append(self._copy(case, table))
            table.unlink()
        return samples

    def _copy(self, case: Case, table: Path) -> CopySample:
        known, restored = self._directory / "known.parquet", self._directory / "restored.parquet"
        copy = [sys.executable, "-P", alone.__file__, str(table), str(self._dataset.values), str(known)]
        duckdb, _ = measure(copy, self._directory, environment())
        _settle()
        detokenize = [executable(), "detokenize", str(table), "--column", "token", "-o", str(restored), "--json"]
        command, told = measure(detokenize, self._directory, environment(**self._variables))
        try:
            done = msgspec.json.decode(told, type=_Done)
        except msgspec.DecodeError as error:
            raise CommandFailed(f"what detokenize --json printed is not understood: {error}") from None
        wrong = differences(restored, known)
        if wrong or done.rows != case.rows:
            raise WrongCopy(f"{wrong:,} of {case.rows:,} rows are not what they should be (the command counted {done.rows:,})")
        known.unlink()
        restored.unlink()
        _settle()
        return CopySample(case, command, duckdb, done.look_ups)


def _settle() -> None:
    """Waits until all writes are on disk, before the next measurement starts."""
    os.sync()
