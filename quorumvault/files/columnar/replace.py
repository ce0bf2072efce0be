"""Applies the table of outcomes to columns of text: the replacement of each text, the counts, and the rows that fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.client.scalars import USUAL_NULLS
from quorumvault.files.columnar.answers import CODE, ColumnAnswer
from quorumvault.files.job import CellCounts, Job, RunError
from quorumvault.files.outcomes import STATUSES, CellOutcome, CellRule, CellStatus, count
from quorumvault.files.part_files import Reject

#: The most rows that an error names.
_ROWS_SHOWN: Final = 5


def replacements(rules: dict[CellStatus, CellRule], texts: Any, answered: ColumnAnswer) -> Any:
    """Returns the replacement of each distinct text (large_utf8): the text itself, the answer, or null."""
    kept = [CODE[status] for status, rule in rules.items() if rule.outcome is CellOutcome.KEEP]
    stays = pc.is_in(answered.codes, pa.array(kept, pa.uint8()))
    return pc.if_else(stays, texts, answered.results)


def moved_pairs(texts: Any, answered: ColumnAnswer) -> Iterator[str]:
    """Yields TEXT,TOKEN for each text that a token replaces."""
    moved = pc.equal(answered.codes, CODE["ok"])
    lines = pc.binary_join_element_wise(texts.filter(moved), answered.results.filter(moved), pa.scalar(",", pa.large_utf8()))
    yield from lines.to_pylist()


def like_nulls(job: Job) -> list[str]:
    """Returns the texts that others write for a missing value, and that the job makes tokens of."""
    return sorted(USUAL_NULLS.difference(job.dialect.nulls)) if job.operation == "tokenize" else []


def settle_rows(
    rules: dict[CellStatus, CellRule], source: str, column: str, codes: np.ndarray[Any, Any], first: int, totals: CellCounts
) -> list[Reject]:
    """Adds the rows of a column, given by their codes, to ``totals``. Returns the rejects, if the job lists them.

    ``first`` is the number of the first row. Raises RunError for rows that end the run.
    """
    found = np.bincount(codes, minlength=len(STATUSES))
    rejects: list[Reject] = []
    for status in STATUSES:
        cells, rule = int(found[CODE[status]]), rules[status]
        if not cells:
            continue
        if rule.outcome is CellOutcome.FAIL:
            raise _refusal(source, _rows(codes, status, first, _ROWS_SHOWN + 1), rule.problem_at(column))
        count(totals, column, rule, cells)
        if rule.code is not None:
            rejects += [Reject(row, column, rule.code) for row in _rows(codes, status, first)]
    return rejects


def _rows(codes: np.ndarray[Any, Any], status: CellStatus, first: int, most: int | None = None) -> list[int]:
    rows: list[int] = (np.nonzero(codes == CODE[status])[0][:most] + first).tolist()
    return rows


def _refusal(source: str, rows: list[int], problem: str) -> RunError:
    shown, more = ", ".join(map(str, rows[:_ROWS_SHOWN])), len(rows) > _ROWS_SHOWN
    return RunError(f"{source}: row{'s' if len(rows) > 1 else ''} {shown}{', …' if more else ''}: {problem}")
