"""Parquet: a part has only the replaced columns of some row groups; the output is the source with these columns in place.

    convert    columns of row groups, as dictionaries -> answers to the texts in them -> a part: an Arrow stream of dictionaries
    assemble   the other columns of the source, row group by row group + the parts, in step -> the output

So rows keep their order without sorting, the other columns are read and written once, and a part is cheap to write again.
"""

import contextlib
import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quorumvault.analytics.columns import status_name
from quorumvault.analytics.metadata import without_values
from quorumvault.analytics.texts import is_text
from quorumvault.errors import ColumnError
from quorumvault.files.columnar import cast_types, int96, pandas_types
from quorumvault.files.columnar.answers import CODE, ColumnAnswers, registered
from quorumvault.files.columnar.layout import Layout, row_groups_cut
from quorumvault.files.columnar.part_rows import Numbers, PartRows, cuts, damaged, repeated
from quorumvault.files.columnar.replace import like_nulls, moved_pairs, replacements, settle_rows
from quorumvault.files.engine import ConvertedPart, PartProgress
from quorumvault.files.job import CellCounts, Job, RunError
from quorumvault.files.outcomes import STATUS_NAMES, cell_rules
from quorumvault.files.part_files import PartFiles, PartLists, Reject, part_lists
from quorumvault.files.sources import Source
from quorumvault.formats.table import RowPlace

#: Rows of a part, which is what a kill costs: a few seconds of work. Row groups are not cut. Each part starts an empty pipeline.
PART_ROWS = 4_000_000
#: The most rows, and bytes before compression, of the replaced columns in memory at once.
CHUNK_ROWS = 1 << 20
CHUNK_BYTES = 32 << 20
_BATCH_ROWS: Final = 1 << 17
#: A column with up to this many bytes per row must consist of a dictionary and indices, and is read as such. For any other column
#: pyarrow would build a dictionary, which grows from row group to row group.
_CODED_BYTES: Final = 8
#: A row group with more bytes is read and written in pieces.
_GROUP_BYTES: Final = 128 << 20
#: A utf8 column with fewer bytes surely has a dictionary that fits into utf8, which ends at 2 GiB.
_UTF8_BYTES: Final = 1 << 30
#: A row group with fewer bytes of texts from the vault is assembled while the one before is written.
_AHEAD_BYTES: Final = 64 << 20
_BUFFER_BYTES: Final = 1 << 20
ItemT = TypeVar("ItemT")
#: The distinct texts of a column, and for each row the index into them, -1 for a null.
Encoded: TypeAlias = "tuple[Any, Numbers]"


class ParquetReader:
    """A Parquet file: that of a source, or a copy of it at ``path``. Raises RunError if it is not Parquet."""

    def __init__(self, source: Source, con: duckdb.DuckDBPyConnection, path: Path | None = None) -> None:
        self._source = source
        self.path = path or source.path
        self.con = con
        with self.open() as file:
            self.metadata = file.metadata
            self.schema = file.schema_arrow
        _require_told_apart(self.schema.names, source)
        with _reading(source):
            self.layout = Layout(source, self.path, self.metadata, self.schema, con)

    def sizes(self, groups: slice) -> dict[str, int]:
        """Returns the bytes of each column in these row groups, before compression."""
        sizes = dict.fromkeys(self.schema.names, 0)
        for leaf, size in zip(self.layout.leaves, self.layout.sizes[groups].sum(axis=0).tolist(), strict=True):
            sizes[leaf.column] += size
        return sizes

    def open(self, coded: Sequence[str] = ()) -> Any:
        """Opens a pyarrow.parquet.ParquetFile. ``coded`` columns are read as the dictionaries in the file."""
        with _reading(self._source):
            return pq.ParquetFile(
                self.path,
                read_dictionary=list(coded),
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
                coerce_int96_timestamp_unit=int96.UNIT,
            )

    def types(self) -> dict[str, Any]:
        """DuckDB's type of each column."""
        return duckdb_types(self.con, self.path, self.schema.names)

    def chunks(self, columns: Sequence[str], start: int, stop: int) -> Iterator[Any]:
        """Yields tables of these columns, from row groups ``start`` to ``stop``, in order."""
        groups = list(range(start, stop))
        total = sum(self.metadata.row_group(group).num_rows for group in groups)
        sizes = self.sizes(slice(start, stop))
        coded = [name for name in columns if sizes[name] < _CODED_BYTES * total and name not in self.layout.prefixed]
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * total // max(1, sum(sizes[name] for name in columns))))
        held: list[Any] = []
        count = 0
        with _reading(self._source), self.open(coded) as file:
            for batch in file.iter_batches(min(rows, _BATCH_ROWS), row_groups=groups, columns=list(columns)) if groups else ():
                if held and count + len(batch) > rows:
                    yield pa.Table.from_batches(held)
                    held, count = [], 0
                held.append(batch)
                count += len(batch)
        if held:
            yield pa.Table.from_batches(held)

    def texts(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        group = 0
        while group < self.metadata.num_row_groups:
            end = self.part_end(group)
            for chunk in self.chunks(columns, group, end):
                yield {name: chunk.unify_dictionaries().column(name).combine_chunks() for name in columns}
            group = end

    def part_end(self, group: int) -> int:
        """Returns the row group at which a part that begins with ``group`` ends."""
        rows = 0
        while group < self.metadata.num_row_groups and rows < PART_ROWS:
            rows += self.metadata.row_group(group).num_rows
            group += 1
        return group


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # UnicodeDecodeError: a column's name
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(source) from None


def _require_told_apart(names: Sequence[str], source: Source) -> None:
    """Raises ColumnError for names that DuckDB, and most other readers, cannot tell apart."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(name.casefold())
        if other == name:
            raise ColumnError(f"{source} has two columns {name!r}: rename one of them")
        if other is not None:
            raise ColumnError(f"{source} has columns {other!r} and {name!r}, which are one name but for case: rename one of them")
        seen[name.casefold()] = name


def duckdb_types(con: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns DuckDB's type of each column of a Parquet file, by the file's own ``names``, some of which DuckDB changes."""
    relation = con.read_parquet(glob.escape(str(path)), hive_partitioning=False)
    return dict(zip(names, relation.types, strict=True))


class ParquetConversion:
    """Implements Conversion. A place's offset is a row group."""

    def __init__(
        self, job: Job, source: Source, reader: ParquetReader, columns: Sequence[str], answers: ColumnAnswers, spill: Path
    ) -> None:
        self._job = job
        self._rules = cell_rules(job)
        self._like_nulls = pa.array(like_nulls(job), pa.large_utf8())
        self._source = source
        self._reader = reader
        self._columns = list(columns)
        self._left = job.left_of(reader.schema.names, columns, source)
        self._answers = answers
        self._con = reader.con
        notes = cast_types.in_metadata(reader.schema.metadata)
        self._restored = cast_types.to_restore(notes, columns, source) if job.restore_types else {}
        kinds = {name: cast_types.arrow_type(kind, name, source) for name, kind in self._restored.items()}
        self._schema = _output_schema(job, reader.schema, columns, kinds)
        self._options = reader.layout.writer_options(self._schema, columns)
        self.left_out: list[str] = []
        self.not_kept = reader.layout.not_kept(columns)
        if job.operation == "tokenize" and not job.allow_plain:
            self._schema, self.left_out = without_values(self._schema, self._all_values)
        notes = {name: kind for name, kind in notes.items() if name not in self._restored}
        notes |= cast_types.of_columns(reader.types(), reader.schema, job.cast)
        self._schema = self._schema.with_metadata(cast_types.with_notes(self._schema.metadata, notes))
        with _reading(source):
            int96.require_whole_microseconds(reader.path, sorted({leaf.column for leaf in reader.layout.int96}), source)
        _require_kept(reader, self._schema, self._options, self._columns, source, spill)

    def _all_values(self) -> Iterator[Any]:
        for texts in self._reader.texts(self._columns):
            for name, column in texts.items():
                yield self._texts(pa.chunked_array([column]), name)[0]

    def first_values(self, rows: int) -> dict[str, list[str]]:
        groups = range(self._reader.metadata.num_row_groups)[:1]
        found: dict[str, list[str]] = {name: [] for name in self._columns}
        with _reading(self._source), self._reader.open() as file:
            for batch in islice(file.iter_batches(rows, row_groups=groups, columns=self._columns), 1 if groups else 0):
                for name in self._columns:
                    texts, indices = self._texts(pa.chunked_array([batch.column(name)]), name)
                    found[name] = texts.take(pa.array(indices[indices >= 0])).to_pylist()
        return found

    def opened(self, output: Path) -> BinaryIO:
        return output.open("rb")

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: PartProgress) -> ConvertedPart:
        metadata = self._reader.metadata
        end = self._reader.part_end(start.offset) if stop is None else stop.offset
        counts, row = CellCounts(dict.fromkeys(self._columns, 0), left=self._left), start.row
        size = self._reader.path.stat().st_size
        with (
            part_lists(self._job, self._source, files) as lists,
            pa.OSFile(str(files.data), "wb") as sink,
            pa.ipc.new_stream(sink, self._part_schema()) as writer,
        ):
            # A pipeline of three stages: reads a chunk, encodes the one before, and asks about the one before that.
            chunks = _ahead(self._reader.chunks(self._columns, start.offset, end))
            for encoded in _ahead(map(self._encode, chunks)):
                batch = self._convert(encoded, row, counts, lists)
                writer.write_batch(batch)
                row += len(batch)
                progress(len(batch), size * len(batch) // metadata.num_rows)
        counts.rows = row - start.row
        epoch = self._answers.note_epoch(counts)
        return ConvertedPart(RowPlace(row, end), end == metadata.num_row_groups, counts, epoch)

    def _part_schema(self) -> Any:
        kinds = {name: pa.dictionary(pa.int32(), pa.large_utf8()) for name in self._columns}
        codes = {status_name(name): pa.uint8() for name in self._columns} if self._job.status else {}
        return pa.schema(kinds | codes)

    def _encode(self, chunk: Any) -> dict[str, Encoded]:
        return {name: self._texts(chunk.column(name), name) for name in self._columns}

    def _convert(self, encoded: dict[str, Encoded], row: int, counts: CellCounts, lists: PartLists) -> Any:
        columns: dict[str, Any] = {}
        rejects: list[Reject] = []
        pairs: list[Iterator[str]] = []
        for name, (texts, indices) in encoded.items():
            answered = self._answers.of(texts)
            codes = np.append(answered.codes.to_numpy(zero_copy_only=False), np.uint8(CODE["null"]))[indices]
            rejects += settle_rows(self._rules, str(self._source), name, codes, row + 1, counts)
            for place in pc.indices_nonzero(pc.is_in(texts, self._like_nulls)).to_pylist():
                counts.note_like_null(name, texts[place].as_py(), int(np.count_nonzero(indices == place)))
            pairs.append(moved_pairs(texts, answered))
            values = replacements(self._rules, texts, answered)
            lacking = np.append(values.is_null().to_numpy(zero_copy_only=False), True)[indices]
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32(), mask=lacking), values)
            if self._job.status:
                columns[status_name(name)] = pa.array(codes)
        counts.rejected += len(rejects)
        lists.write(sorted(rejects), chain.from_iterable(pairs))
        return pa.record_batch(columns, self._part_schema())

    def _texts(self, column: Any, name: str) -> Encoded:
        if name in self._job.cast:
            # A separate cursor, since another thread asks for answers.
            with self._con.cursor() as con, registered(con, "chunk", pa.table({"cell": column})):
                column = con.sql("select cast(cell as varchar) as text from chunk").to_arrow_table().column("text")
        if not pa.types.is_dictionary(column.type):
            fits = column.type == pa.utf8() and column.nbytes < _UTF8_BYTES  # copying the offsets takes time
            column = (column if fits else column.cast(pa.large_utf8())).dictionary_encode()
        for chunk in column.chunks:  # pyarrow does not check the indices
            lowest, highest = pc.min_max(chunk.indices).as_py().values()
            if highest is not None and not 0 <= lowest <= highest < len(chunk.dictionary):
                raise damaged(self._source)
        encoded = pa.chunked_array(column.chunks, column.type).unify_dictionaries().combine_chunks()
        texts = encoded.dictionary.cast(pa.large_utf8())
        try:
            texts.validate(full=True)
        except pa.ArrowException:
            raise RunError(f"{self._source}: {name}: a text that is not UTF-8") from None
        indices = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy()
        # A dictionary may have texts that no row has, which must not be looked up.
        used = np.zeros(len(texts) + 1, bool)
        used[indices] = True
        if used[:-1].all():
            return texts, indices
        places = np.cumsum(used[:-1]) - 1
        return texts.filter(pa.array(used[:-1])), np.append(places, -1)[indices]

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        rows = self._rows(parts)
        groups = 0
        with_dictionary = self._reader.layout.with_dictionary(self._schema, self._repeated(parts))
        with pq.ParquetWriter(output, self._schema, use_dictionary=with_dictionary, **self._options) as writer:
            for piece in _ahead(self._pieces(rows)):
                table = self._merged(*piece) if isinstance(piece, tuple) else piece
                writer.write_table(table, row_group_size=max(1, len(table)))
                groups += 1
            if rows.left():
                raise damaged(self._source)
        self.not_kept += row_groups_cut(self._reader.metadata.num_row_groups, groups)

    def _rows(self, parts: Sequence[PartFiles]) -> PartRows:
        return PartRows([files.data for files in parts], self._part_schema(), self._source)

    def _repeated(self, parts: Sequence[PartFiles]) -> set[str]:
        """Returns the replaced columns with many repeated texts, judged by the first row group."""
        metadata = self._reader.metadata
        first = min(metadata.row_group(0).num_rows, CHUNK_ROWS) if metadata.num_row_groups else 0
        return repeated(self._rows(parts).take(first)[0])

    def _pieces(self, rows: PartRows) -> Iterator[Any]:
        """Yields a table for each row group to write. For a row group too large to assemble ahead, yields its two halves."""
        for others in self._others():
            replaced, sizes = rows.take(len(others))
            start = 0
            for stop in cuts(sizes):
                piece = others.slice(start, stop - start), replaced.slice(start, stop - start)
                yield self._merged(*piece) if sizes[start:stop].sum() < _AHEAD_BYTES else piece
                start = stop

    def _others(self) -> Iterator[Any]:
        """Yields the columns that stay as they are, as a table for each row group to write."""
        metadata = self._reader.metadata
        others = [name for name in self._reader.schema.names if name not in self._columns]
        with _reading(self._source), self._reader.open() as file:
            for group in range(metadata.num_row_groups):
                found = metadata.row_group(group)
                if not others:
                    yield pa.table({"": pa.nulls(found.num_rows)})
                elif found.num_rows <= CHUNK_ROWS and found.total_byte_size <= _GROUP_BYTES:
                    yield file.read_row_group(group, columns=others)
                else:
                    rows = max(1, min(CHUNK_ROWS, found.num_rows * _GROUP_BYTES // max(1, found.total_byte_size)))
                    yield from (
                        pa.Table.from_batches([batch]) for batch in file.iter_batches(rows, row_groups=[group], columns=others)
                    )

    def _merged(self, others: Any, replaced: Any) -> Any:
        columns: dict[str, Any] = {}
        for name in self._reader.schema.names:
            if name not in self._columns:
                columns[name] = others.column(name)
                continue
            kind = self._schema.field(name).type
            texts = replaced.column(name).cast(pa.large_utf8())
            if name in self._restored:
                where = f"{self._source}: {name}"
                columns[name] = cast_types.restored(self._con, texts, self._restored[name], kind, where)
            else:
                columns[name] = pa.nulls(len(texts)) if pa.types.is_null(kind) else texts.cast(kind)
            if self._job.status:
                columns[status_name(name)] = pc.take(_STATUS_NAMES, replaced.column(status_name(name)))
        return pa.table(columns, self._schema)


_STATUS_NAMES: Final = pa.array(STATUS_NAMES, pa.utf8())


def _output_schema(job: Job, schema: Any, columns: Sequence[str], restored: dict[str, Any]) -> Any:
    """Returns the source's schema, with text for cast columns and for columns that only DuckDB knows as text, and with statuses.

    ``restored``: the types of columns that get their former types back.
    """
    fields = []
    for field in schema:
        if field.name not in columns:
            fields.append(field)
            continue
        if pa.types.is_null(field.type):
            fields.append(field)
            fields += [pa.field(status_name(field.name), pa.utf8())] if job.status else []
            continue
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = restored.get(field.name, kind if is_text(kind) and field.name not in job.cast else pa.utf8())
        has_nulls = field.nullable or job.rejects is not None or job.missing == "null"
        fields.append(field.with_type(kind).with_nullable(has_nulls))
        if job.status:
            fields.append(pa.field(status_name(field.name), pa.utf8()))
    cast = [name for name in columns if name in job.cast and not is_text(schema.field(name).type)]
    return pandas_types.told(pa.schema(fields, schema.metadata), cast, restored)


def _require_kept(
    reader: ParquetReader, schema: Any, options: dict[str, Any], replaced: Sequence[str], source: Source, spill: Path
) -> None:
    """Raises ColumnError for a column that would get another type than it has in the file."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **options):
        pass
    probe = spill / "probe.parquet"
    probe.write_bytes(sink.getvalue())
    before, after = reader.types(), duckdb_types(reader.con, probe, schema.names)
    for name, kind in before.items():
        if name not in replaced and after[name] != kind:
            raise ColumnError(f"{source}: column {name} is {kind}, which would not be kept: cast it to another type first")


def _ahead(items: Iterator[ItemT]) -> Iterator[ItemT]:
    """Yields the items, and makes the next one in a thread at the same time."""
    with ThreadPoolExecutor(1, thread_name_prefix="quorumvault") as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item
