"""The table of outcomes has a row for every status and option, and both engines treat a cell as its row says."""

import io
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quorumvault.crypto.tokens import format_token
from quorumvault.errors import QuorumVaultError
from quorumvault.files.answers import CellAnswer
from quorumvault.files.columnar.answers import CODE, ColumnAnswer
from quorumvault.files.columnar.replace import replacements, settle_rows
from quorumvault.files.job import CellCounts, IfToken, Job, JobOperation, Missing
from quorumvault.files.outcomes import STATUSES, TABLE, CellOutcome, CellRule, cell_rules
from quorumvault.files.part_files import Reject
from quorumvault.files.text.engine import TextSource, open_table
from quorumvault.files.text.rows import Converter

TOKEN = format_token(1, bytes(20))
IF_TOKEN: tuple[IfToken, ...] = ("fail", "keep")
OPERATIONS: tuple[JobOperation, ...] = ("tokenize", "detokenize")
MISSING: tuple[Missing, ...] = ("keep", "null", "error")
JOBS = [
    Job(operation=operation, sources=(), output=None, if_token=if_token, missing=missing, rejects=rejects)
    for operation, if_token, missing, rejects in product(OPERATIONS, IF_TOKEN, MISSING, (None, Path("rejects.csv")))
]


def in_text(job: Job, rule: CellRule, text: str | None) -> tuple[str | None, CellCounts, list[Reject]]:
    """Run a table of one cell through the engine of text files. Return the cell's new content, the counts and the rejects."""
    operation: Any = (
        "detokenize" if rule.status in ("not_token", "damaged", "not_found") or rule.tokenizes is False else "tokenize"
    )
    given = Job(operation=operation, sources=(), output=None, if_token=job.if_token, missing=job.missing, rejects=job.rejects)
    table = open_table(given, io.BytesIO(f"c,d\n{text or ''},x\n".encode()), TextSource("in.csv", "csv"), ["c"], [])
    answer = CellAnswer(rule.status, "answer" if rule.status == "ok" else None)
    (row,) = table.rows()
    done = Converter(given, table, "in.csv", lambda values: [answer] * len(values)).convert([row], 1)
    return row.render().decode().split(",")[0] or None, done.counts, done.rejects


def in_columns(job: Job, rule: CellRule, text: str | None) -> tuple[str | None, CellCounts, list[Reject]]:
    """Run a column of one row through the code that Parquet and DuckDB share."""
    counts, rules, code = CellCounts({"c": 0}), cell_rules(job), CODE[rule.status]
    rejects = settle_rows(rules, "in.parquet", "c", np.array([code], np.uint8), 1, counts)
    counts.rejected += len(rejects)
    counts.rows = 1
    texts = pa.array([text], pa.large_utf8())
    answered = ColumnAnswer(pa.array(["answer" if rule.status == "ok" else None], pa.large_utf8()), pa.array([code], pa.uint8()))
    return replacements(rules, texts, answered).to_pylist()[0], counts, rejects


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.operation}-{job.if_token}-{job.missing}-{job.rejects}")
def test_each_status_has_one_row_for_any_options(job: Job) -> None:
    assert sorted(rule.status for rule in TABLE if rule.holds(job)) == sorted(STATUSES)


@pytest.mark.parametrize("engine", [in_text, in_columns])
@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: f"{rule.status}-{rule.outcome.name}")
def test_both_engines_follow_every_row(rule: CellRule, engine: Any) -> None:
    is_token = rule.status in ("already_token", "not_found") or rule.tokenizes is False
    text = None if rule.status == "null" else TOKEN if is_token else TOKEN[:-1] if rule.status == "damaged" else "plain"
    for job in (job for job in JOBS if rule.holds(job)):
        if rule.outcome is CellOutcome.FAIL:
            with pytest.raises(QuorumVaultError, match=re.escape(rule.problem_at("c"))):
                engine(job, rule, text)
            continue
        cell, counts, rejects = engine(job, rule, text)
        assert cell == {CellOutcome.KEEP: text, CellOutcome.NULL: None, CellOutcome.REPLACE: "answer"}[rule.outcome]
        is_listed = rule.code is not None and job.rejects is not None
        assert rejects == ([Reject(1, "c", str(rule.code))] if is_listed else [])
        expected = CellCounts({"c": 0}, rows=1, rejected=int(is_listed))
        if rule.counter == "values":
            expected.values["c"] = 1
        elif rule.counter == "damaged":
            expected.damaged, expected.no_token = {"c": 1}, 1
        elif rule.counter is not None:
            setattr(expected, rule.counter, 1)
        assert counts == expected
