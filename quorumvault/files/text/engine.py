"""CSV and JSON Lines files: a part is some rows in their exact bytes, and the parts in order are the output."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from quorumvault.client import Client
from quorumvault.files.answers import Lookup, TextAnswers, VaultLookup
from quorumvault.files.engine import ConvertedPart, PartProgress
from quorumvault.files.job import Job
from quorumvault.files.part_files import PartFiles, part_lists
from quorumvault.files.sources import Format, Source, compression_of, delimiter_of
from quorumvault.files.text.rows import Converter, convert_rows
from quorumvault.files.text.streams import TextInput, copy_text, require_writable, text_output
from quorumvault.formats.csv import CsvTable, grammar
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.lines import Lines
from quorumvault.formats.table import RowPlace, Table

#: Rows of a part, which is what a kill costs: a few seconds of work.
PART_ROWS = 200_000
PART_BYTES = 64 << 20
_IsEnd: TypeAlias = Callable[[RowPlace], bool]


class TextSource(NamedTuple):
    """The source of a table: its name, its format, and, for CSV, its delimiter if the job has none."""

    name: str
    format: Format
    delimiter: str = ","


def open_table(job: Job, stream: BinaryIO, source: TextSource, columns: Sequence[str], configured: Sequence[str]) -> Table:
    """Opens a table and selects the named columns, or the configured ones if none are named. Raises ColumnError, InputError."""
    lines, dialect = Lines(stream, source.name), job.dialect
    table: Table
    if source.format == "csv":
        table = CsvTable(lines, grammar(dialect.delimiter or source.delimiter, quoting=dialect.quoting))
    else:
        table = JsonLinesTable(lines)
    if columns:
        table.select_named(columns)
    else:
        table.select_configured(configured)
    if job.operation == "tokenize":
        table.leave(job.keep, only_listed=job.only_listed)
    return table


class TextEngine:
    """Implements Engine."""

    def __init__(self, job: Job, vault: Client, configured: Sequence[str], spill: Path) -> None:
        self._job = job
        self._configured = configured
        self._vault = VaultLookup(job, vault)
        self.answers = TextAnswers(spill, self._vault, one_epoch=job.operation != "detokenize")

    @property
    def look_ups(self) -> int:
        return self._vault.look_ups

    def explain(self, error: Exception) -> str | None:
        return f"the answers on disk: {error}" if isinstance(error, sqlite3.Error) else None

    def conversion(self, source: Source) -> TextConversion:
        return TextConversion(self._job, source, self._configured, self.answers)


class TextConversion:
    """Implements Conversion. Raises ColumnError for columns that the file is known to lack."""

    def __init__(self, job: Job, source: Source, configured: Sequence[str], look_up: Lookup) -> None:
        self._job = job
        self._source = source
        self._columns = source.columns or job.columns
        self._configured = configured
        self._look_up = look_up
        self.left_out: list[str] = []
        self.not_kept: list[str] = []
        with self._table():
            pass

    @contextlib.contextmanager
    def _table(self) -> Iterator[tuple[Table, _IsEnd]]:
        """Yields the table, and a function that tells whether a place is its end."""
        path, name = self._source.path, str(self._source)
        with path.open("rb") as stream:
            given = TextInput(stream, name, compression_of(path), self._job.dialect.encoding)
            self._codec = given.codec
            source = TextSource(name, self._source.format, delimiter_of(path))
            table = open_table(self._job, given.stream, source, self._columns, self._configured)
            size = os.fstat(stream.fileno()).st_size
            yield table, (lambda place: given.is_at_end()) if given.is_layered else (lambda place: place.offset >= size)

    def first_values(self, rows: int) -> dict[str, list[str]]:
        with self._table() as (table, _):
            found: dict[str, list[str]] = {name: [] for name in table.columns}
            for row in islice(table.rows(), rows):
                for cell in row.cells():
                    if isinstance(cell.value, str):
                        found[table.columns[cell.column]].append(cell.value)
            return found

    @contextlib.contextmanager
    def opened(self, output: Path) -> Iterator[BinaryIO]:
        with output.open("rb") as stream:
            yield TextInput(stream, str(output), compression_of(output), self._job.dialect.encoding).stream

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: PartProgress) -> ConvertedPart:
        with self._table() as (table, is_end), files.data.open("wb") as sink, part_lists(self._job, self._source, files) as lists:
            if start == RowPlace():
                sink.write(table.header())
            else:
                table.skip_to(start)

            def is_enough(place: RowPlace) -> bool:
                if stop is not None:
                    return place.offset >= stop.offset
                return place.row - start.row >= PART_ROWS or place.offset - start.offset >= PART_BYTES or is_end(place)

            converter = Converter(self._job, table, str(self._source), self._look_up)
            total, place = converter.nothing(), start
            for batch in convert_rows(table, converter, start, is_enough):
                require_writable(batch.text, self._codec, str(self._source), batch.line)
                sink.write(batch.text)
                total.add(batch.converted.counts)
                lists.write(batch.converted.rejects, batch.converted.pairs)
                place = batch.stop
                progress(batch.converted.counts.rows, batch.size)
            is_last = is_end(place)
            if is_last:
                table.check_seen()
            total.left = list(table.left)
        return ConvertedPart(place, is_last, total, max(total.epochs, default=None))

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        job = self._job
        named = self._source.path if job.output is None or job.is_folder else job.output
        with output.open("xb") as sink, text_output(sink, compression_of(named), self._codec) as text:
            for files in parts:
                copy_text(files.data, text)
