"""What the engines for Parquet and DuckDB share. Needs the extra ``analytics``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from quorumvault.analytics.columns import require_status_free, require_text
from quorumvault.client import Client
from quorumvault.errors import ColumnError
from quorumvault.files.columnar.answers import ColumnAnswers, connect
from quorumvault.files.columnar.duckdb import TableConversion, TableReader
from quorumvault.files.columnar.parquet import ParquetConversion, ParquetReader
from quorumvault.files.engine import Conversion
from quorumvault.files.job import Job, RunError
from quorumvault.files.lakes import LakeRead
from quorumvault.files.sources import Source, require_utf8
from quorumvault.formats.table import cast_positions, configured_columns, require_named

if TYPE_CHECKING:
    from quorumvault.files.columnar.delta import DeltaVersion


class ColumnarEngine:
    """Implements Engine."""

    def __init__(self, job: Job, vault: Client, configured: Sequence[str], spill: Path) -> None:
        self._job = job
        self._configured = configured
        self._spill = spill
        self._con = connect(spill)
        self.answers = ColumnAnswers(job, vault, self._con)
        self._table = None if job.lake is None else _delta_version(job.lake)

    @property
    def look_ups(self) -> int:
        return self.answers.look_ups

    def explain(self, error: Exception) -> str | None:
        """Quotes only errors about files and memory: the text of DuckDB's other errors may contain a value."""
        if isinstance(error, (duckdb.IOException, duckdb.OutOfMemoryException)):
            return str(error).splitlines()[0]
        if isinstance(error, duckdb.Error | pa.ArrowException) or (isinstance(error, OSError) and error.errno is None):
            return f"a file cannot be read, or an output written: {type(error).__name__}"
        return None

    def conversion(self, source: Source) -> Conversion:
        path = None if self._table is None else self._table.prepared(source, self._spill)
        reader = open_source(source, self._con, path)
        columns = fit_columns(self._job, source, reader.types(), self._configured)
        if isinstance(reader, ParquetReader):
            return ParquetConversion(self._job, source, reader, columns, self.answers, self._spill)
        return TableConversion(self._job, source, reader, columns, self.answers)


def _delta_version(lake: LakeRead) -> DeltaVersion:
    from quorumvault.files.columnar.delta import DeltaVersion

    return DeltaVersion(lake.table, lake.version)


def open_source(source: Source, con: duckdb.DuckDBPyConnection, path: Path | None = None) -> ParquetReader | TableReader:
    """Opens a source, or a copy of its Parquet file at ``path``.

    Raises RunError if the file cannot be read in its format, InputsError for a name that DuckDB cannot open.
    """
    require_utf8(source.path)
    if source.format == "parquet":
        return ParquetReader(source, con, path)
    if source.table is None:
        raise RunError(f"{source}: say which table: FILE.duckdb::TABLE, or --table")
    return TableReader(source, source.table, con)


def fit_columns(job: Job, source: Source, types: dict[str, Any], configured: Sequence[str]) -> list[str]:
    """Returns the columns to work on, after checking that all are fit. Raises ColumnError, which names the source."""
    names, wanted = list(types), source.columns or job.columns
    if wanted:
        require_named(wanted, names, str(source))
    columns = list(dict.fromkeys(wanted)) or configured_columns(configured, names, str(source))
    cast_positions(job.cast, columns)
    if job.status:
        require_status_free(str(source), columns, names)
    for name in columns:
        if types[name].id == "null":  # pandas writes this type for a column without values
            continue
        try:
            require_text(name, types[name], may_cast=job.operation == "tokenize", cast=name in job.cast)
        except ColumnError as error:
            raise ColumnError(f"{source}: {error}") from None
    return columns


def text_columns(source: Source) -> list[str]:
    """Returns the text columns of a Parquet or DuckDB source."""
    with duckdb.connect() as con:
        types = open_source(source, con).types()
    found = []
    for name, kind in types.items():
        try:
            require_text(name, kind, may_cast=False, cast=False)
        except ColumnError:
            continue
        found.append(name)
    return found


def read_texts(source: Source, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the texts in columns of a Parquet or DuckDB source as pyarrow arrays, in row order, in chunks of bounded size."""
    with duckdb.connect() as con:
        yield from open_source(source, con).texts(columns)
