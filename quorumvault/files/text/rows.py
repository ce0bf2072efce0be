"""Rows of text through the vault: their cells' values to a client, and what comes back into the cells.

Some batches of rows are under way at once, in threads, so that nodes work while this process reads; they come out in their order.
What is in memory is those batches, however long the table is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from quorumvault.client import Client
from quorumvault.crypto.tokens import is_token, parse_token
from quorumvault.errors import InputError, RequestError
from quorumvault.files.job import Counts, Job
from quorumvault.files.pieces import Reject
from quorumvault.files.statuses import CODES, FAULTS, NOT_FOUND_WORDS, OF_CODES, Status
from quorumvault.formats.table import Cell, Place, Row, Table

#: A batch: enough rows for full requests, since equal values of a batch are sent once, and a bound on the memory they take.
BATCH_ROWS = 10_000
BATCH_SIZE = 4 << 20
#: One for each node.
IN_FLIGHT = 3

Value: TypeAlias = "str | msgspec.Raw"


class Answer(NamedTuple):
    """Of one value: a status, and what takes its place if that is ``ok``.

    The status is None if the value was not asked about, since another one of the call is faulty.
    """

    status: Status | None
    replacement: Value | None = None


class Lookup(Protocol):
    def __call__(self, values: Sequence[Value]) -> list[Answer]:
        """An answer to each value, in order. Called from several threads."""
        ...


class VaultLookup:
    """Asks the vault. ``asked`` counts what it is asked about, each distinct value of a call once.

    What cannot be tokenized gets its fault for an answer; the others of its call are asked about if ``tolerant``.
    """

    def __init__(self, job: Job, vault: Client) -> None:
        self._operation = job.operation
        self._tolerant = job.rejects is not None
        self._vault = vault
        self.asked = 0

    def __call__(self, values: Sequence[Value]) -> list[Answer]:
        match self._operation:
            case "tokenize":
                return self._tokenize(values)
            case "detokenize":
                found = self._vault.detokenize(_texts(values))
                answers = [Answer(_status(each.status), msgspec.Raw(each.json) if each.found else None) for each in found]
            case "retokenize":
                moved = self._vault.retokenize(_texts(values))
                answers = [Answer(_status(each.status), each.token if each.found else None) for each in moved]
        self.asked += len(set(values))
        return answers

    def _tokenize(self, values: Sequence[Value]) -> list[Answer]:
        answers = [Answer(None)] * len(values)
        left = list(range(len(values)))
        while left:
            try:
                tokens = self._vault.tokenize([values[place] for place in left])
            except RequestError as error:
                faults = {left[item.index]: OF_CODES[item.code] for item in error.errors if item.code in OF_CODES}
                if not faults:
                    raise
                for place, fault in faults.items():
                    answers[place] = Answer(fault)
                left = [place for place in left if place not in faults] if self._tolerant else []
                continue
            for place, token in zip(left, tokens, strict=True):
                answers[place] = Answer("ok", token)
            self.asked += len({bytes(value) if isinstance(value, msgspec.Raw) else value for value in values})
            break
        return answers


def _texts(values: Sequence[Value]) -> list[str]:
    """Tokens are strings: what is none was not looked up."""
    return [value for value in values if isinstance(value, str)]


def _status(word: str) -> Status:
    status: Status = msgspec.convert(word, Status)
    return status


@dataclass(slots=True)
class Converted:
    """What became of a batch of rows."""

    counts: Counts
    rejects: list[Reject] = field(default_factory=list)
    #: Of retokenize: old tokens and new ones.
    pairs: dict[str, str] = field(default_factory=dict)


class Converter:
    """Replaces cells. What cannot be done ends it all, or is listed, as the job says."""

    def __init__(self, job: Job, table: Table, source: str, look_up: Lookup) -> None:
        self._job = job
        self._columns = table.columns
        self._source = source
        self._look_up = look_up

    def nothing(self) -> Counts:
        return Counts(dict.fromkeys(self._columns, 0))

    def convert(self, rows: Sequence[Row], first: int) -> Converted:
        """Replaces cells in a batch of rows, the first of which has this number; may be called from several threads."""
        done = Converted(self.nothing())
        places: list[tuple[int, Row, Cell]] = []
        values: list[Value] = []
        number = first - 1
        for row in rows:
            number += row.is_record
            for cell in row.cells():
                value = cell.value
                if (isinstance(value, str) and is_token(value)) == (self._job.operation == "tokenize"):
                    self._leave(number, row, cell, done)
                else:
                    places.append((number, row, cell))
                    values.append(value)
        done.counts.rows = number + 1 - first
        answers = self._answers(values, places)
        for place, answer in zip(places, answers, strict=True):
            self._settle(*place, answer, done)
        if self._job.crosswalk is not None:
            moved = zip(values, answers, strict=True)
            done.pairs = {str(old): str(answer.replacement) for old, answer in moved if answer.status == "ok"}
        return done

    def _answers(self, values: Sequence[Value], places: Sequence[tuple[int, Row, Cell]]) -> list[Answer]:
        answers = self._look_up(values) if values else []
        if self._job.rejects is None:
            for (_, row, cell), answer in zip(places, answers, strict=True):
                if answer.status in FAULTS:
                    raise self._error(row, cell, FAULTS[answer.status])
        return answers

    def _leave(self, number: int, row: Row, cell: Cell, done: Converted) -> None:
        """Of a cell that is not asked about: text that is no token, or a token where values are tokenized."""
        if self._job.operation != "tokenize":
            done.counts.no_token += 1
        elif self._job.keeps_tokens:
            done.counts.kept_tokens += 1
        elif self._job.rejects is None:
            raise self._error(row, cell, FAULTS["already_token"])
        else:
            self._reject(number, cell, "already_token", done)
            cell.replace(None)

    def _settle(self, number: int, row: Row, cell: Cell, answer: Answer, done: Converted) -> None:
        status, replacement = answer
        counts = done.counts
        match status:
            case "ok":
                cell.replace(replacement)
                counts.values[self._columns[cell.column]] += 1
                if not counts.epochs and self._job.operation != "detokenize" and isinstance(replacement, str):
                    # One call of the client gives tokens of one epoch.
                    counts.epochs = [epoch for epoch, _ in filter(None, [parse_token(replacement)])]
                return
            case "unavailable":
                counts.unavailable += 1
            case "collision":
                counts.collision += 1
            case "not_found":
                counts.not_found += 1
                if self._job.missing == "error":
                    raise self._error(row, cell, NOT_FOUND_WORDS)
                if self._job.missing == "null":
                    cell.replace(None)
            case _:
                cell.replace(None)
        if status is not None and self._job.rejects is not None:
            self._reject(number, cell, status, done)

    def _reject(self, number: int, cell: Cell, status: Status, done: Converted) -> None:
        done.rejects.append(Reject(number, self._columns[cell.column], CODES[status]))
        done.counts.rejected += 1

    def _error(self, row: Row, cell: Cell, problem: str) -> InputError:
        return InputError(self._source, row.line, f"{self._columns[cell.column]}: {problem}")


class Batch(NamedTuple):
    """Rows that were converted, and where they end."""

    text: bytes
    size: int
    stop: Place
    converted: Converted


def convert_rows(table: Table, converter: Converter, start: Place, is_enough: Callable[[Place], bool]) -> Iterator[Batch]:
    """The table's rows from ``start`` on, converted, to the end or until ``is_enough`` says so of a place between batches."""
    waiting: deque[tuple[list[Row], Place, Future[Converted]]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="quorumvault") as pool:
        try:
            first = start.row + 1
            for rows, stop in _batches(table, start, is_enough):
                waiting.append((rows, stop, pool.submit(converter.convert, rows, first)))
                first = stop.row + 1
                if len(waiting) == IN_FLIGHT:
                    yield _settled(*waiting.popleft())
            while waiting:
                yield _settled(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _settled(rows: list[Row], stop: Place, converted: Future[Converted]) -> Batch:
    done = converted.result()
    return Batch(b"".join([row.render() for row in rows]), sum(row.size for row in rows), stop, done)


def _batches(table: Table, start: Place, is_enough: Callable[[Place], bool]) -> Iterator[tuple[list[Row], Place]]:
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
