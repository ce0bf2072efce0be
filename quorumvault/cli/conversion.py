"""Tables through the vault: batches of rows out of a table, their cells' values to a client, and the rows into a file.

Some batches are under way at once, in threads, so that nodes work while this process reads; they are written in their order. A
table of any length passes: what is in memory is those batches. Nothing is written before the first of them was answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol, TypeVar

import msgspec

from quorumvault.client import Client
from quorumvault.crypto.tokens import is_token, parse_token
from quorumvault.errors import InputError, RequestError
from quorumvault.tabular.table import Cell, Row, Table

#: A batch: enough rows for full requests, since equal values of a batch are sent once, and a bound on the memory they take.
BATCH_ROWS = 10_000
BATCH_SIZE = 4 << 20
#: One for each node.
IN_FLIGHT = 3

#: Of one token: the status that the vault gave it, and what takes its place if that is "ok".
Answer = tuple[str, str | msgspec.Raw | None]
#: Told how many rows are done, and how many bytes more.
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Tokenized:
    """What was done: values that became tokens per column, cells left alone as they had tokens already, epochs of the tokens.

    More than one epoch means that a rotation happened meanwhile.
    """

    values: dict[str, int]
    rows: int = 0
    kept_tokens: int = 0
    epochs: list[int] = field(default_factory=list)

    def add(self, other: Tokenized) -> None:
        _add(self.values, other.values)
        self.rows += other.rows
        self.kept_tokens += other.kept_tokens
        self.epochs = sorted({*self.epochs, *other.epochs})


@dataclass(slots=True)
class Detokenized:
    """What was done: tokens that were replaced per column; tokens that were not, and why; cells that had no token in them.

    ``epochs`` are those of new tokens, so there are none where values came back.
    """

    values: dict[str, int]
    rows: int = 0
    epochs: list[int] = field(default_factory=list)
    not_found: int = 0
    unavailable: int = 0
    collision: int = 0
    no_token: int = 0

    @property
    def partial(self) -> bool:
        return bool(self.not_found or self.unavailable or self.collision)

    def add(self, other: Detokenized) -> None:
        _add(self.values, other.values)
        self.rows += other.rows
        self.epochs = sorted({*self.epochs, *other.epochs})
        self.not_found += other.not_found
        self.unavailable += other.unavailable
        self.collision += other.collision
        self.no_token += other.no_token


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for column, count in more.items():
        totals[column] += count


DoneT = TypeVar("DoneT", Tokenized, Detokenized)
DoneT_co = TypeVar("DoneT_co", Tokenized, Detokenized, covariant=True)


class Converter(Protocol[DoneT_co]):
    def nothing(self) -> DoneT_co:
        """The counts before anything is done."""
        ...

    def convert(self, rows: Sequence[Row]) -> DoneT_co:
        """Replaces cells in a batch of rows; may be called from several threads."""
        ...


class Tokenizer:
    """A cell that has a token in it already stays as it is with ``keep_tokens``, and else ends it all."""

    def __init__(self, table: Table, source: str, vault: Client, *, keep_tokens: bool) -> None:
        self._columns = table.columns
        self._source = source
        self._vault = vault
        self._keep_tokens = keep_tokens

    def nothing(self) -> Tokenized:
        return Tokenized(dict.fromkeys(self._columns, 0))

    def convert(self, rows: Sequence[Row]) -> Tokenized:
        """Replaces the values in a batch of rows."""
        done = self.nothing()
        places: list[tuple[Row, Cell]] = []
        values: list[str | msgspec.Raw] = []
        for row in rows:
            done.rows += row.is_record
            for cell in row.cells():
                value = cell.value
                if isinstance(value, str) and is_token(value):
                    done.kept_tokens += self._keep(row, cell)
                else:
                    places.append((row, cell))
                    values.append(value)
        tokens = self._tokenize(values, places)
        for (_, cell), token in zip(places, tokens, strict=True):
            cell.replace(token)
            done.values[self._columns[cell.column]] += 1
        # One call of the client gives tokens of one epoch.
        done.epochs.extend(epoch for epoch, _ in filter(None, map(parse_token, tokens[:1])))
        return done

    def _keep(self, row: Row, cell: Cell) -> Literal[1]:
        if not self._keep_tokens:
            raise self._error(row, cell, "there is a token already; --if-token keep leaves tokens as they are")
        return 1

    def _tokenize(self, values: list[str | msgspec.Raw], places: list[tuple[Row, Cell]]) -> list[str]:
        try:
            return [token or "" for token in self._vault.tokenize(values)]
        except RequestError as error:
            if not error.errors:
                raise
            first = error.errors[0]
            raise self._error(*places[first.index], first.detail) from error

    def _error(self, row: Row, cell: Cell, problem: str) -> InputError:
        return InputError(self._source, row.line, f"{self._columns[cell.column]}: {problem}")


class Detokenizer:
    """``missing``: what becomes of a cell whose token is not found: it stays, or is null, or ends it all."""

    def __init__(self, table: Table, source: str, vault: Client, *, missing: Literal["keep", "null", "error"]) -> None:
        self._columns = table.columns
        self._source = source
        self._vault = vault
        self._missing = missing

    def nothing(self) -> Detokenized:
        return Detokenized(dict.fromkeys(self._columns, 0))

    def convert(self, rows: Sequence[Row]) -> Detokenized:
        """Replaces the tokens in a batch of rows. What is no token by its form is not sent: it may be an identifier."""
        done = self.nothing()
        places: list[tuple[Row, Cell]] = []
        tokens: list[str] = []
        for row in rows:
            done.rows += row.is_record
            for cell in row.cells():
                value = cell.value
                if isinstance(value, str) and is_token(value):
                    places.append((row, cell))
                    tokens.append(value)
                else:
                    done.no_token += 1
        for (row, cell), (status, replacement) in zip(places, self._look_up(tokens, done), strict=True):
            self._settle(row, cell, status, replacement, done)
        return done

    def _look_up(self, tokens: list[str], done: Detokenized) -> list[Answer]:
        return [(result.status, msgspec.Raw(result.json) if result.found else None) for result in self._vault.detokenize(tokens)]

    def _settle(self, row: Row, cell: Cell, status: str, replacement: str | msgspec.Raw | None, done: Detokenized) -> None:
        column = self._columns[cell.column]
        match status:
            case "ok":
                cell.replace(replacement)
                done.values[column] += 1
            case "unavailable":
                done.unavailable += 1
            case "collision":
                done.collision += 1
            case _:
                done.not_found += 1
                if self._missing == "error":
                    raise InputError(self._source, row.line, f"{column}: no value of yours has this token")
                if self._missing == "null":
                    cell.replace(None)


class Retokenizer(Detokenizer):
    """Like its parent, and what takes a token's place is the token of the active epoch."""

    def _look_up(self, tokens: list[str], done: Detokenized) -> list[Answer]:
        answers: list[Answer] = [(result.status, result.token) for result in self._vault.retokenize(tokens)]
        moved = [token for _, token in answers if isinstance(token, str)]
        # One call of the client gives tokens of one epoch.
        done.epochs.extend(epoch for epoch, _ in filter(None, map(parse_token, moved[:1])))
        return answers


def convert_table(table: Table, converter: Converter[DoneT], sink: BinaryIO, progress: Progress) -> DoneT:
    """Writes the table with its rows converted, and counts. Raises ColumnError, before any output if the table is not long."""
    total, head = converter.nothing(), table.header()
    waiting: deque[tuple[list[Row], Future[DoneT]]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            for batch, is_last in _batches(table):
                waiting.append((batch, pool.submit(converter.convert, batch)))
                while waiting and (is_last or len(waiting) == IN_FLIGHT):
                    rows, done = waiting.popleft()
                    total.add(done.result())
                    sink.write(head + b"".join([row.render() for row in rows]))
                    head = b""
                    progress(total.rows, sum(row.size for row in rows))
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def _batches(table: Table) -> Iterator[tuple[list[Row], bool]]:
    """The rows in batches, and of each whether it is the last; that one may be empty."""
    batch: list[Row] = []
    size = 0
    for row in table.rows():
        batch.append(row)
        size += row.size
        if len(batch) == BATCH_ROWS or size >= BATCH_SIZE:
            yield batch, False
            batch, size = [], 0
    table.check_seen()
    yield batch, True
