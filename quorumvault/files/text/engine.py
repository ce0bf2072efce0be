"""CSV and JSON Lines files: a part is some rows in their exact bytes; the parts one after the other are the output."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from quorumvault.client import Client
from quorumvault.files.answers import Lookup, TextAnswers, VaultLookup
from quorumvault.files.engine import ConvertedPart
from quorumvault.files.job import Job, Progress
from quorumvault.files.part_files import PartFiles, part_lists
from quorumvault.files.sources import Format, Source
from quorumvault.files.text.rows import Converter, convert_rows
from quorumvault.formats.csv import CsvTable
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.lines import Lines
from quorumvault.formats.table import RowPlace, Table

#: As much as a kill costs: some seconds of work.
PART_ROWS = 200_000
PART_BYTES = 64 << 20


def open_table(job: Job, stream: BinaryIO, name: str, form: Format, columns: Sequence[str], configured: Sequence[str]) -> Table:
    """Opens a table and selects the named columns, or else the configured ones. Raises ColumnError, InputError."""
    lines = Lines(stream, name)
    table: Table = CsvTable(lines) if form == "csv" else JsonLinesTable(lines)
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
    """Implements Conversion. Raises ColumnError for columns that the file is known not to have."""

    def __init__(self, job: Job, source: Source, configured: Sequence[str], look_up: Lookup) -> None:
        self._job = job
        self._source = source
        self._columns = source.columns or job.columns
        self._configured = configured
        self._look_up = look_up
        with self._table():
            pass

    @contextlib.contextmanager
    def _table(self) -> Iterator[tuple[Table, int]]:
        """The table, and the length of its file."""
        with self._source.path.open("rb") as stream:
            table = open_table(self._job, stream, str(self._source), self._source.format, self._columns, self._configured)
            yield table, os.fstat(stream.fileno()).st_size

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: Progress) -> ConvertedPart:
        with self._table() as (table, size), files.data.open("wb") as sink, part_lists(self._job, self._source, files) as lists:
            if start == RowPlace():
                sink.write(table.header())
            else:
                table.skip_to(start)

            def is_enough(place: RowPlace) -> bool:
                if stop is not None:
                    return place.offset >= stop.offset
                return place.row - start.row >= PART_ROWS or place.offset - start.offset >= PART_BYTES or place.offset >= size

            converter = Converter(self._job, table, str(self._source), self._look_up)
            total, place = converter.nothing(), start
            for batch in convert_rows(table, converter, start, is_enough):
                sink.write(batch.text)
                total.add(batch.converted.counts)
                lists.write(batch.converted.rejects, batch.converted.pairs)
                place = batch.stop
                progress(batch.converted.counts.rows, batch.size)
            if place.offset >= size:
                table.check_seen()
            total.left = list(table.left)
        return ConvertedPart(place, place.offset >= size, total, max(total.epochs, default=None))

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        with output.open("xb") as sink:
            for files in parts:
                with files.data.open("rb") as part:
                    shutil.copyfileobj(part, sink)
