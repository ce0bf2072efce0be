"""Runs rows of text through the vault: looks up the values of their cells, and replaces the cells by the answers.

IN_FLIGHT batches of rows are under way at once, in threads, so that nodes work while this process reads. Batches come out in
order. Memory holds only these batches, whatever the length of the table.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from quorumvault.client.scalars import USUAL_NULLS
from quorumvault.client.threads import threads
from quorumvault.crypto.tokens import is_damaged, is_token, parse_token
from quorumvault.errors import InputError
from quorumvault.files.answers import CellAnswer, CellValue, Lookup
from quorumvault.files.job import CellCounts, Job
from quorumvault.files.outcomes import CellOutcome, CellStatus, cell_rules, count
from quorumvault.files.part_files import Reject
from quorumvault.formats.table import Cell, Row, RowPlace, Table, UnwritableValue

#: Rows of a batch: enough to fill requests, though each distinct value is sent once, and few enough to bound memory.
BATCH_ROWS = 10_000
BATCH_SIZE = 4 << 20
#: Batches under way at once: one for each node.
IN_FLIGHT = 3
#: JSON values with the same text in all files: integers and booleans. Writers spell numbers with a fraction in several ways.
_HAS_TEXT = re.compile(rb"-?\d+|true|false")
#: A second text for 0, which Parquet and DuckDB do not have.
_MINUS_ZERO = re.compile(rb"-0")


@dataclass(slots=True)
class Converted:
    """The outcome of a batch of rows: counts, rejects, and (retokenize with a crosswalk) a line OLD,NEW for each token."""

    counts: CellCounts
    rejects: list[Reject] = field(default_factory=list)
    pairs: dict[str, None] = field(default_factory=dict)


class Converter:
    """Replaces cells by the job's table of outcomes."""

    def __init__(self, job: Job, table: Table, source: str, look_up: Lookup) -> None:
        self._is_tokenize = job.operation == "tokenize"
        self._has_crosswalk = job.crosswalk is not None
        self._makes_tokens = job.operation != "detokenize"
        self._rules = cell_rules(job)
        self._columns = table.columns
        self._typed = job.typed
        self._nulls = frozenset(job.dialect.nulls)
        #: Texts to check: nulls, and for tokenize also texts that look like nulls.
        self._watched = self._nulls | USUAL_NULLS if self._is_tokenize else self._nulls
        self._cast = table.positions(job.cast)
        self._source = source
        self._look_up = look_up

    def nothing(self) -> CellCounts:
        return CellCounts(dict.fromkeys(self._columns, 0))

    def convert(self, rows: Sequence[Row], first: int) -> Converted:
        """Replaces cells in a batch of rows. ``first`` is the number of the first row. May be called from several threads.

        Raises InputError for a cell that ends the run.
        """
        done = Converted(self.nothing())
        asked: list[tuple[int, Row, Cell]] = []
        values: list[CellValue] = []
        number, watched, is_tokenize = first - 1, self._watched, self._is_tokenize
        for row in rows:
            number += row.is_record
            for cell in row.cells():
                value = cell.value
                if isinstance(value, str):
                    if value in watched:
                        if value in self._nulls:
                            continue
                        done.counts.note_like_null(self._columns[cell.column], value)
                elif is_tokenize and (status := self._not_sent(value, cell.column)) is not None:
                    self._settle(number, row, cell, CellAnswer(status), done)
                    continue
                elif is_tokenize and cell.column in self._cast and _HAS_TEXT.fullmatch(value):
                    value = bytes(value).decode()
                if (isinstance(value, str) and is_token(value)) == is_tokenize:  # the vault is not asked
                    self._settle(number, row, cell, CellAnswer("already_token" if is_tokenize else _without_token(value)), done)
                else:
                    asked.append((number, row, cell))
                    values.append(value)
        done.counts.rows = number + 1 - first
        answers = self._look_up(values) if values else []
        for place, answer in zip(asked, answers, strict=True):
            self._settle(*place, answer, done)
        if self._has_crosswalk:
            moved = zip(values, answers, strict=True)
            done.pairs = dict.fromkeys(
                ",".join((str(old), str(answer.replacement))) for old, answer in moved if answer.status == "ok"
            )
        return done

    def _not_sent(self, value: msgspec.Raw, column: int) -> CellStatus | None:
        """Returns the status of a JSON value, not a string, that is not sent to be tokenized; None if it is sent."""
        is_cast = column in self._cast
        if self._typed and not is_cast:
            return None
        if _MINUS_ZERO.fullmatch(value):
            return "not_tokenizable"
        return "typed" if not is_cast and _HAS_TEXT.fullmatch(value) else None

    def _settle(self, number: int, row: Row, cell: Cell, answer: CellAnswer, done: Converted) -> None:
        if answer.status is None:  # another value of its request ends the run before this one is written
            cell.replace(None)
            return
        rule, column, counts = self._rules[answer.status], self._columns[cell.column], done.counts
        match rule.outcome:
            case CellOutcome.REPLACE:
                try:
                    cell.replace(answer.replacement)
                except UnwritableValue as error:
                    raise InputError(self._source, row.line, f"{column}: {error}") from None
            case CellOutcome.NULL:
                cell.replace(None)
            case CellOutcome.FAIL:
                raise InputError(self._source, row.line, rule.problem_at(column))
        if self._makes_tokens and not counts.epochs and isinstance(answer.replacement, str):
            # All tokens of one client call have one epoch.
            counts.epochs = [epoch for epoch, _ in filter(None, [parse_token(answer.replacement)])]
        count(counts, column, rule)
        if rule.code is not None:
            done.rejects.append(Reject(number, column, rule.code))
            counts.rejected += 1


def _without_token(value: CellValue) -> CellStatus:
    return "damaged" if isinstance(value, str) and is_damaged(value) else "not_token"


class Batch(NamedTuple):
    """Converted rows, the line of the first row, and their end."""

    text: bytes
    line: int
    size: int
    stop: RowPlace
    converted: Converted


def convert_rows(table: Table, converter: Converter, start: RowPlace, is_enough: Callable[[RowPlace], bool]) -> Iterator[Batch]:
    """Yields the table's converted rows from ``start`` to the end, or to the end of the first batch where ``is_enough`` holds."""
    waiting: deque[tuple[list[Row], RowPlace, Future[Converted]]] = deque()
    with threads(IN_FLIGHT) as pool:
        first = start.row + 1
        for rows, stop in _batches(table, start, is_enough):
            waiting.append((rows, stop, pool.submit(converter.convert, rows, first)))
            first = stop.row + 1
            if len(waiting) == IN_FLIGHT:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())


def _settled(rows: list[Row], stop: RowPlace, converted: Future[Converted]) -> Batch:
    done = converted.result()
    line = rows[0].line if rows else 0
    return Batch(b"".join([row.render() for row in rows]), line, sum(row.size for row in rows), stop, done)


def _batches(table: Table, start: RowPlace, is_enough: Callable[[RowPlace], bool]) -> Iterator[tuple[list[Row], RowPlace]]:
    batch: list[Row] = []
    number, size = start.row, 0
    for row in table.rows():
        batch.append(row)
        number += row.is_record
        size += row.size
        if len(batch) == BATCH_ROWS or size >= BATCH_SIZE:
            stop = table.place(number)
            yield batch, stop
            if is_enough(stop):
                return
            batch, size = [], 0
    table.check_seen()
    yield batch, table.place(number)
