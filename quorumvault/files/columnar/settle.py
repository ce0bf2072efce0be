"""What answers make of a column of text: what takes the place of each text, counts, and the rows that cannot be done."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.files.columnar.answers import CODE, Answered
from quorumvault.files.job import Counts, Job, RunError
from quorumvault.files.pieces import Reject
from quorumvault.files.statuses import CODES, FAULTS, NOT_FOUND_WORDS, STATUSES, Status

#: Rows that an error names.
_ROWS_SHOWN: Final = 5


def kept(job: Job) -> list[Status]:
    """Statuses of texts that stay where they are. Whatever else is not ``ok`` is null."""
    statuses: list[Status] = ["not_token", "unavailable", "collision"]
    if job.missing == "keep":
        statuses.append("not_found")
    if job.keeps_tokens:
        statuses.append("already_token")
    return statuses


def replacements(job: Job, texts: Any, answered: Answered) -> Any:
    """For each of the distinct texts, what a row that has it has from now on."""
    stays = pc.is_in(answered.codes, pa.array([CODE[status] for status in kept(job)], pa.uint8()))
    return pc.if_else(stays, texts, answered.results)


def write_pairs(sink: BinaryIO, texts: Any, answered: Answered) -> None:
    """A line for each text that has a token in its place: the text, a comma, the token."""
    moved = pc.equal(answered.codes, CODE["ok"])
    lines = pc.binary_join_element_wise(texts.filter(moved), answered.results.filter(moved), pa.scalar(",", pa.large_utf8()))
    sink.writelines(f"{line}\n".encode() for line in lines.to_pylist())


def fatal(job: Job) -> dict[Status, str]:
    """Statuses that end the run, and why."""
    words: dict[Status, str] = dict(FAULTS) if job.rejects is None else {}
    if job.keeps_tokens:
        words.pop("already_token", None)
    if job.missing == "error":
        words["not_found"] = NOT_FOUND_WORDS
    return words


def listed(job: Job) -> list[Status]:
    """Statuses of cells that go to the list of rejects."""
    if job.rejects is None:
        return []
    return [status for status in CODES if not (status == "already_token" and job.keeps_tokens)]


def count(job: Job, column: str, counts: dict[Status, int], totals: Counts) -> None:
    """Adds cells of a column, by their status."""
    totals.values[column] = totals.values.get(column, 0) + counts.get("ok", 0)
    totals.no_token += counts.get("not_token", 0)
    totals.not_found += counts.get("not_found", 0)
    totals.unavailable += counts.get("unavailable", 0)
    totals.collision += counts.get("collision", 0)
    if job.keeps_tokens:
        totals.kept_tokens += counts.get("already_token", 0)


def refuse(source: str, column: str, rows: list[int], more: bool, words: str) -> RunError:
    """An error about rows, counted from 1."""
    shown = ", ".join(map(str, rows)) + (", …" if more else "")
    return RunError(f"{source}: row{'s' if len(rows) > 1 or more else ''} {shown}: {column}: {words}")


def settle_rows(job: Job, source: str, column: str, codes: np.ndarray[Any, Any], first: int, totals: Counts) -> list[Reject]:
    """Counts the rows of a column by their codes; rejects, with the first row numbered ``first``. Raises RunError."""
    found = np.bincount(codes, minlength=len(STATUSES))
    by_status = {status: int(found[code]) for status, code in CODE.items()}
    for status, words in fatal(job).items():
        if by_status[status]:
            rows = np.nonzero(codes == CODE[status])[0][: _ROWS_SHOWN + 1] + first
            raise refuse(source, column, rows[:_ROWS_SHOWN].tolist(), len(rows) > _ROWS_SHOWN, words)
    count(job, column, by_status, totals)
    rejects = [
        Reject(int(row) + first, column, CODES[status])
        for status in listed(job)
        if by_status[status]
        for row in np.nonzero(codes == CODE[status])[0]
    ]
    totals.rejected += len(rejects)
    return rejects
