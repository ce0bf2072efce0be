"""Tables, batches, arrays and readers of pyarrow, whose types stay; and any object with Arrow's PyCapsule interface."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pyarrow as pa

from quorumvault.analytics.arrow import ArrowVault, nothing, passage
from quorumvault.analytics.columns import status_name
from quorumvault.analytics.frames import Replaced, Request, replaced
from quorumvault.analytics.metadata import without_values
from quorumvault.analytics.texts import of_type
from quorumvault.errors import ColumnError

#: Rows of a reader to look up together: more rows find more repeats; fewer rows take less memory.
_WINDOW_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class ArrowTable:
    """A pyarrow.Table. Metadata that contains a value of a replaced column is left out; other metadata stays."""

    table: Any = field(repr=False)
    is_array: ClassVar = False

    @property
    def names(self) -> Sequence[str]:
        names: list[str] = self.table.column_names
        return names

    def column(self, name: str, *, cast: bool) -> Any:
        return self.table.column(name)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        by_name = {each.name: each for each in columns}
        fields, arrays = [], []
        for own, array in zip(self.table.schema, self.table.columns, strict=True):
            each = by_name.get(own.name)
            if each is not None:
                array = like(array, each)
                own = own.with_type(array.type)
            fields.append(own)
            arrays.append(array)
            if each is not None and each.status is not None:
                fields.append(pa.field(status_name(own.name), pa.utf8()))
                arrays.append(each.status)
        given = pa.schema(fields, self.table.schema.metadata)
        schema, _ = without_values(given, lambda: _chunks(columns))
        arrays = [
            array if old.equals(new, check_metadata=True) else _retyped(array, new.type)
            for array, old, new in zip(arrays, given, schema, strict=True)
        ]
        return pa.table(arrays, schema=schema)


@dataclass(frozen=True, slots=True)
class ArrowBatch:
    """A pyarrow.RecordBatch."""

    batch: Any = field(repr=False)
    is_array: ClassVar = False

    @property
    def names(self) -> Sequence[str]:
        return self._table.names

    @property
    def _table(self) -> ArrowTable:
        return ArrowTable(pa.Table.from_batches([self.batch]))

    def column(self, name: str, *, cast: bool) -> Any:
        return self._table.column(name, cast=cast)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        table = self._table.replaced(columns)
        return pa.RecordBatch.from_arrays([_whole(column) for column in table.columns], schema=table.schema)


@dataclass(frozen=True, slots=True)
class ArrowArray:
    """A pyarrow.Array or ChunkedArray."""

    array: Any = field(repr=False)
    is_array: ClassVar = True
    names: ClassVar[Sequence[str]] = ("value",)

    def column(self, name: str, *, cast: bool) -> Any:
        return pa.chunked_array(self._chunks, self.array.type)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        found = like(self.array, columns[0])
        return found if isinstance(self.array, pa.ChunkedArray) else _whole(found)

    @property
    def _chunks(self) -> list[Any]:
        return self.array.chunks if isinstance(self.array, pa.ChunkedArray) else [self.array]


def like(column: Any, each: Replaced) -> Any:
    """Returns a column's replacement: of the same type if that is null or text, else of large_utf8."""
    return pa.chunked_array([column]) if pa.types.is_null(column.type) else of_type(each.result, column.type)


def through_reader(reader: Any, request: Request, open_vault: Callable[[], AbstractContextManager[ArrowVault]]) -> Any:
    """Returns a pyarrow.RecordBatchReader that replaces the columns of another one while it is read, all in one epoch.

    The columns are checked now. If the epoch is rotated after a part was read, reading raises EpochMoved, and the caller has to
    start again.
    """
    schema = replaced(ArrowTable(reader.schema.empty_table()), request, nothing).schema

    def batches() -> Iterator[Any]:
        start = 0
        with open_vault() as vault, passage(vault, request.operation) as way:
            for table in _windows(reader):
                found = replaced(ArrowTable(table), request, way.table, start)
                if not found.schema.equals(schema, check_metadata=True):
                    raise ColumnError("metadata of the reader's schema has values of a column: read it without that metadata")
                yield from found.to_batches()
                start += len(table)

    return pa.RecordBatchReader.from_batches(schema, batches())


def of_capsule(data: Any) -> ArrowTable | ArrowArray | ArrowBatch | None:
    """Converts an object with ``__arrow_c_stream__`` or ``__arrow_c_array__`` to pyarrow's. Returns None for any other."""
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return ArrowTable(pa.table(data))
        except (pa.ArrowInvalid, TypeError):  # a stream of arrays, not of rows
            return ArrowArray(pa.chunked_array(data))
    if hasattr(data, "__arrow_c_array__"):
        array = pa.array(data)
        return ArrowBatch(pa.record_batch(data)) if pa.types.is_struct(array.type) else ArrowArray(array)
    return None


def _windows(reader: Any) -> Iterator[Any]:
    held: list[Any] = []
    for batch in reader:
        held.append(batch)
        if sum(each.num_rows for each in held) >= _WINDOW_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _whole(column: Any) -> Any:
    """Returns a column as one array. Raises ColumnError if its text is more than one array of its type can hold."""
    if column.num_chunks < 2:
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)
    try:
        return pa.concat_arrays(column.chunks)
    except pa.ArrowInvalid:
        raise ColumnError(f"what replaces a column of {column.type} is larger than 2 GiB: make it large_string") from None


@dataclass(frozen=True, slots=True)
class _Retyped:
    """An array as one of a type that differs in metadata alone, which Arrow's casts do not look at."""

    array: Any = field(repr=False)
    type: Any

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self.type.__arrow_c_schema__(), self.array.__arrow_c_array__()[1]


def _retyped(column: Any, kind: Any) -> Any:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([pa.array(_Retyped(chunk, kind)) for chunk in chunks], kind)


def _chunks(columns: Sequence[Replaced]) -> Iterator[Any]:
    for each in columns:
        yield from each.texts.chunks
