"""Delta tables, read at a version and written as one commit. Needs the extra ``delta``.

    version of the source -> its data files, each a source of the run -> outputs, with their names -> one commit that lists them

An output belongs to a table only once a commit lists it, so all outputs of a run appear at the same instant, or none does. The
new table has its source's columns, partitions and rows. Properties, comments, constraints and defaults are not copied, since they
may contain values, nor are the statistics of replaced columns, which are values.

A data file is copied first if its rows differ from the table's (rows are deleted, or columns were added after the file).
"""

import math
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, create_table_with_add_actions

from quorumvault.durable import sync_directory, sync_file
from quorumvault.errors import ColumnError
from quorumvault.files.job import Job, RunError
from quorumvault.files.lakes import LakeError, LakeRead
from quorumvault.files.sources import Source
from quorumvault.ownership import umask

#: The reader features that this module supports: for tables with any other, deltalake's readers would return wrong rows.
_FEATURES: Final = {"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_PARTITIONS: Final = ("string", "long", "integer", "short", "byte", "boolean", "date")
_GENERATED: Final = "delta.generationExpression"


class StagedCommit(msgspec.Struct, frozen=True):
    """The content of a commit. ``adds``: the files, as in the log."""

    schema: str
    partition_by: list[str]
    adds: list[dict[str, Any]]


class DeltaVersion:
    """A table at a version, the latest if ``version`` is None. Raises LakeError if it cannot be read."""

    def __init__(self, table: Path, version: int | None) -> None:
        self.path = table
        try:
            self._table = DeltaTable(str(table.resolve()), version=version)
            self.schema: Schema = self._table.schema()
            actions = pa.table(self._table.get_add_actions())
        except (DeltaError, TableNotFoundError, OSError, ValueError) as error:
            which = "" if version is None else f", version {version},"
            raise LakeError(f"{table}{which} cannot be read as a Delta table ({_kind(error)}): is it there, and whole?") from None
        self.version: int = self._table.version()
        self.partition_by = list(self._table.metadata().partition_columns)
        self._configuration = self._table.metadata().configuration
        self._require_known()
        self.files = {self._file(row["path"]): row for row in actions.to_pylist()}
        self._kept = self._deletions()

    def _require_known(self) -> None:
        """Raises LakeError for a table with features that this module does not support."""
        protocol = self._table.protocol()
        unknown = sorted(set(protocol.reader_features or ()) - _FEATURES)
        if self._configuration.get("delta.columnMapping.mode", "none") != "none":
            unknown = ["columnMapping"]
        odd = [field.name for field in self._partitions() if getattr(field.type, "type", "") not in _PARTITIONS]
        if unknown or odd:
            what = f"uses {', '.join(unknown)}" if unknown else f"is partitioned by {odd[0]}, which is {self._field(odd[0]).type}"
            raise LakeError(f"{self.path} {what}, which is not read here: read it with Spark, and write what you read as Parquet")

    def _partitions(self) -> list[Field]:
        return [self._field(name) for name in self.partition_by]

    def _field(self, name: str) -> Field:
        return next(field for field in self.schema.fields if field.name == name)

    def _file(self, logged: str) -> Path:
        if logged.startswith("/") or ":/" in logged:
            raise LakeError(f"{self.path} has files in another table (a shallow clone): name that one, or make a deep clone")
        path = self.path / unquote(logged)
        if not path.is_file():
            raise LakeError(f"{path}, a file of version {self.version}, is gone (VACUUM removes such): name a later version")
        return path

    def _deletions(self) -> dict[Path, Any]:
        """Returns, for each file with deleted rows, which rows are left."""
        if "deletionVectors" not in (self._table.protocol().reader_features or ()):
            return {}
        found = pa.table(self._table.deletion_vectors().read_all())
        known = {path.resolve(): path for path in self.files}
        places = [
            unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri for uri in found["filepath"].to_pylist()
        ]
        return {known[Path(place).resolve()]: found["selection_vector"][row].values for row, place in enumerate(places)}

    def require_columns(self, job: Job) -> None:
        """Raises ColumnError for a partition column, or a column from which another one is generated."""
        for name in job.columns:
            if name in self.partition_by:
                raise ColumnError(
                    f"{self.path} is partitioned by {name}, whose values are in its log and in names of folders: "
                    "write it without that first"
                )
        for field in self.schema.fields if job.operation == "tokenize" and not job.allow_plain else ():
            made = str(field.metadata.get(_GENERATED, "")).casefold()
            if field.name not in job.columns and any(name.casefold() in made for name in job.columns):
                raise ColumnError(f"{self.path}: column {field.name} is generated from one that becomes tokens: name it too")

    def prepared(self, source: Source, spill: Path) -> Path:
        """Returns a source's file. If its rows or columns differ from the table's, returns a copy with the table's."""
        fields = [field for field in pa.schema(self.schema) if field.name not in self.partition_by]
        left = self._kept.get(source.path)
        with pq.ParquetFile(source.path) as file:
            lacking = [field for field in fields if field.name not in file.schema_arrow.names]
            if left is None and not lacking:
                return source.path
            copy = spill / f"delta-{secrets.token_hex(8)}.parquet"
            row = 0
            with pq.ParquetWriter(copy, pa.schema([*file.schema_arrow, *lacking], file.schema_arrow.metadata)) as writer:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group)
                    whole = len(rows)
                    for field in lacking:
                        rows = rows.append_column(field.name, pa.nulls(whole, field.type))
                    writer.write_table((rows if left is None else rows.filter(left[row : row + whole])).cast(writer.schema))
                    row += whole
        return copy

    def staged(self, job: Job, outputs: Sequence[Path]) -> StagedCommit:
        """Returns the commit of finished outputs, in the order of the job's sources."""
        schema = pq.read_schema(outputs[0]) if outputs else None
        fields = [self._output_field(field, schema, job) for field in self.schema.fields]
        adds = [self._add(source, output, job) for source, output in zip(job.sources, outputs, strict=True)]
        return StagedCommit(Schema(fields).to_json(), self.partition_by, adds)

    def _output_field(self, field: Field, schema: Any, job: Job) -> Field:
        """Returns a column without its metadata, with the type text if the output has text."""
        if field.name not in job.columns or schema is None:
            return Field(field.name, field.type, nullable=field.nullable)
        (made,) = Schema.from_arrow(pa.schema([schema.field(field.name).remove_metadata()])).fields
        return Field(field.name, made.type, nullable=True)

    def _add(self, source: Source, output: Path, job: Job) -> dict[str, Any]:
        found, logged = output.stat(), self.files[source.path]
        partition = logged.get("partition") or {}
        stats: dict[str, Any] = {"numRecords": pq.read_metadata(output).num_rows}
        if source.path not in self._kept:
            for name, key in (("min", "minValues"), ("max", "maxValues"), ("null_count", "nullCount")):
                stats[key] = dict(_statistics(logged.get(name) or {}, job.columns))
        return {
            "path": str(source.relative),
            "size": found.st_size,
            "partition_values": {name: _partition_text(partition.get(name)) for name in self.partition_by},
            "modification_time": found.st_mtime_ns // 1_000_000,
            "stats": msgspec.json.encode(stats).decode(),
        }

    def not_kept(self) -> list[str]:
        """Names the table's metadata that is not copied."""
        metadata = self._table.metadata()
        found = [f"property {name}" for name in sorted(self._configuration)]
        found += [what for what, said in (("name", metadata.name), ("description", metadata.description)) if said]
        return found + [f"metadata of {field.name}" for field in self.schema.fields if field.metadata]


def _kind(error: Exception) -> str:
    """Returns the class name of a deltalake error: its message may quote a value of the table."""
    return type(error).__name__


def _statistics(logged: Mapping[str, Any], replaced: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yields the log's statistics of columns that were not replaced, if their values have only one JSON spelling."""
    for name, value in logged.items():
        if name in replaced or value is None or isinstance(value, dict):
            continue
        if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
            yield name, value
        elif type(value) is date:
            yield name, value.isoformat()


def _partition_text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read(table: Path, version: int | None, output: Path, job: Job, names: Sequence[str]) -> tuple[tuple[Source, ...], LakeRead]:
    """Returns a version's data files as sources, and the version. ``names``: the outputs' names from an earlier run, if any.

    Raises LakeError and ColumnError.
    """
    found = DeltaVersion(table, version)
    found.require_columns(job)
    if output.exists() and output.samefile(table):
        raise LakeError(
            f"{table} is the table that is read: a commit to it would leave its values in its earlier versions. "
            "Name another folder, and remove this one when you are done"
        )
    paths = sorted(found.files)
    if not paths:
        raise LakeError(f"{table}, version {found.version}, has no rows: there is nothing to do")
    suffix = secrets.token_hex(8)
    given = names if len(names) == len(paths) else [f"part-{number:05}-{suffix}.parquet" for number in range(len(paths))]
    sources = tuple(Source(path, "parquet", Path(name)) for path, name in zip(paths, given, strict=True))
    return sources, LakeRead(table, found.version, tuple(found.partition_by))


def stage(job: Job, outputs: Sequence[Path], commit_file: Path) -> list[str]:
    """Writes the content of the commit of these outputs. Returns the source table's metadata that is not copied."""
    assert job.lake is not None
    table = DeltaVersion(job.lake.table, job.lake.version)
    commit_file.write_bytes(msgspec.json.encode(table.staged(job, outputs)))
    return [f"{table.path}: {what}" for what in table.not_kept()]


def commit(job: Job, source: LakeRead, commit_file: Path) -> list[str]:
    """Commits outputs that have their names, in place of the table's former files. May be called again.

    Returns messages about data in earlier versions. Raises RunError if the commit is refused; the outputs are kept.
    """
    assert isinstance(job.output, Path)
    staged, output = msgspec.json.decode(commit_file.read_bytes(), type=StagedCommit), job.output.resolve()
    widest = 0o666
    for add in staged.adds:
        widest &= (output / add["path"]).stat().st_mode
    folders = widest | (widest & 0o444) >> 2
    with umask(0o777 & ~(0o700 | folders)):  # the log describes the files' rows, so only readers of the files may read it
        try:
            version = _commit(output, staged, job.operation)
        except DeltaError as error:
            words = f"{job.output} takes no commit ({_kind(error)})"
            raise RunError(f"{words}. What was made is kept: --resume goes on") from None
    log = output / "_delta_log"
    sync_file(log / f"{version:020}.json")
    sync_directory(log)
    sync_directory(output)
    told = []
    if job.operation == "tokenize":
        told.append(f"{source.table} has the values still, in version {source.version} and perhaps in others: it was not changed")
    if version:
        told.append(f"{job.output} has what it had, in its versions before {version}, until VACUUM removes it")
    return told


def _commit(output: Path, staged: StagedCommit, operation: str) -> int:
    adds: list[Any] = [AddAction(data_change=True, **add) for add in staged.adds]
    schema, properties = Schema.from_json(staged.schema), CommitProperties(custom_metadata={"quorumvault": operation})
    if not DeltaTable.is_deltatable(str(output)):
        create_table_with_add_actions(
            str(output), schema, adds, mode="error", partition_by=staged.partition_by, commit_properties=properties
        )
        return 0
    table = DeltaTable(str(output))
    if {add.path for add in adds} != set(pa.table(table.get_add_actions())["path"].to_pylist()):
        table.create_write_transaction(adds, "overwrite", schema, staged.partition_by, commit_properties=properties)
        table.update_incremental()
    return int(table.version())
