"""Arrow IPC streams in and out: one column of text as a dictionary, since the vault asks about each distinct text once.

    utf8, large_utf8, string_view                    -> dictionary_encode   \\
    dictionary of one of them, whose entries may                             > Texts: distinct texts, an index for each row
    repeat, be null, or never be pointed at          -> encode its entries  /

Rows stay in Arrow's memory, and only the distinct texts become Python objects. A stream is foreign bytes: it is validated in full
before it is used, and what would be larger than it came is refused: compressed buffers, and views that share one text.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.config import Limits
from quorumvault.crypto.canonical import from_str
from quorumvault.errors import Invalid, Malformed, TooLarge, TooManyItems

#: Metadata of a schema, in answers that have tokens.
EPOCH = b"quorumvault.epoch"
#: What the canonical form of a text has before its UTF-8.
TEXT_PREFIX = from_str("")
_TEXT = (pa.utf8(), pa.large_utf8(), pa.string_view())
#: Slots of the Flatbuffers tables of Arrow's Message.fbs.
_HEADER_TYPE, _HEADER, _BATCH_COMPRESSION, _DICTIONARY_BATCH = 1, 2, 3, 1
_IS_DICTIONARY, _IS_BATCH = 2, 3
_NOT_VALID = "the body is not a stream of Arrow record batches, or the data in it is not valid"


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of type ``kind``. ``distinct`` is large_utf8 without nulls, ``indices`` int32, null where the row is."""

    kind: Any
    distinct: Any = field(repr=False)
    indices: Any = field(repr=False)

    @property
    def asked(self) -> int:
        """Rows that are not null."""
        return len(self.indices) - int(self.indices.null_count)

    def canonicals(self) -> list[bytes]:
        """The canonical form of each distinct text."""
        prefix, nothing = (pa.scalar(bytes_, pa.large_binary()) for bytes_ in (TEXT_PREFIX, b""))
        joined = pc.binary_join_element_wise(prefix, self.distinct.cast(pa.large_binary()), nothing)
        canonicals: list[bytes] = joined.to_pylist()
        return canonicals

    def rows_of(self, distinct: Container[int]) -> list[tuple[int, int]]:
        """Each row whose text is one of these, and which one that is."""
        return [(row, index) for row, index in enumerate(self.indices.to_pylist()) if index in distinct]

    def tally(self, words: Sequence[str]) -> dict[str, int]:
        """How many rows each word has, of those that are not null."""
        counted = pa.array(words, pa.utf8()).take(self.indices).value_counts()
        return dict(zip(*(column.to_pylist() for column in counted.flatten()), strict=True))

    def size_of(self, sizes: Sequence[int]) -> int:
        """Bytes of a column that has for each row a text of its text's size; a dictionary has each only once."""
        if pa.types.is_dictionary(self.kind):
            return sum(sizes)
        return int(pc.sum(pa.array(sizes, pa.int64()).take(self.indices)).as_py() or 0)

    def spread(self, texts: Any) -> Any:
        """A column of the same type that has for each row what stands for its text. A null has a null."""
        values = pa.array(texts, pa.large_utf8())
        if not pa.types.is_dictionary(self.kind):
            return values.take(self.indices).cast(self.kind)
        entries = values.dictionary_encode()
        indices = entries.indices.take(self.indices)
        return pa.DictionaryArray.from_arrays(indices, entries.dictionary.cast(self.kind.value_type))

    def statuses(self, words: Sequence[str]) -> Any:
        """The same for words; a null has "null"."""
        return pa.array(words, pa.utf8()).take(self.indices).fill_null("null")


def read_texts(body: bytes, name: str, limits: Limits) -> Texts:
    """The one column of a stream, which has to be called ``name``. Raises Malformed, Invalid, TooManyItems, TooLarge."""
    table = read_stream(body, limits)
    if table.schema.names != [name]:
        raise Invalid(f"send a stream of one column, named {name}")
    kind = table.schema.field(0).type
    if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in _TEXT:
        raise Invalid(f"the column {name} is of another type than utf8, large_utf8, string_view, or a dictionary of one of them")
    if table.num_rows == 0:
        return Texts(kind, pa.array([], pa.large_utf8()), pa.array([], pa.int32()))
    try:
        encoded = pa.chunked_array([_encode(chunk, limits) for chunk in table.column(0).chunks])
    except (pa.ArrowException, ValueError):
        raise Malformed(_NOT_VALID) from None
    whole = encoded.unify_dictionaries().combine_chunks()
    used = whole.indices.unique().drop_null()  # the others were not asked about
    return Texts(kind, whole.dictionary.take(used), pc.index_in(whole.indices, value_set=used))


def read_stream(body: bytes, limits: Limits) -> Any:
    """The table in these bytes. Raises Malformed for what is no stream of valid data, TooManyItems, Invalid for compression."""
    try:
        _refuse_compression(body)
        reader = pa.ipc.open_stream(body)
        batches, rows = [], 0
        _ = reader.schema.names  # decoded when asked for
        for batch in reader:
            rows += batch.num_rows
            if rows > limits.items:
                raise TooManyItems(f"a request has at most {limits.items} rows here (GET /limits); send them in several requests")
            batch.validate(full=True)
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, ValueError, OSError, IndexError, struct.error):
        raise Malformed(_NOT_VALID) from None


def write_stream(columns: Mapping[str, Any], epoch: int | None = None) -> bytes:
    """A stream of one record batch."""
    batch = pa.record_batch(dict(columns))
    if epoch is not None:
        batch = batch.replace_schema_metadata({EPOCH: str(epoch)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _encode(chunk: Any, limits: Limits) -> Any:
    """Dictionary of large_utf8 without nulls or repeats, with indices of int32."""
    if not pa.types.is_dictionary(chunk.type):
        return _large(chunk, limits).dictionary_encode()
    entries = _large(chunk.dictionary, limits).dictionary_encode()
    indices = entries.indices.take(chunk.indices)
    return pa.DictionaryArray.from_arrays(indices, entries.dictionary)


def _large(texts: Any, limits: Limits) -> Any:
    """As large_utf8. Views may all point at one long text: their lengths are added up before they are followed."""
    if pa.types.is_string_view(texts.type):
        lengths = memoryview(texts.buffers()[1]).cast("i")[::4] if len(texts) else ()
        if sum(lengths[texts.offset : texts.offset + len(texts)]) > limits.body_bytes:
            raise TooLarge(f"the texts of a request have at most {limits.body_bytes} bytes together here (GET /limits)")
    large = texts.cast(pa.large_utf8())
    large.validate(full=True)
    return large


def _refuse_compression(body: bytes) -> None:
    for message in pa.ipc.MessageReader.open_stream(body):
        if _is_compressed(message.metadata.to_pybytes()):
            raise Invalid("send the stream without compression of its buffers")


def _is_compressed(metadata: bytes) -> bool:
    """Whether the record batch of a message has compressed buffers, by its Flatbuffers metadata: pyarrow would just unpack it."""
    message = _u32(metadata, 0)
    kind = _slot(metadata, message, _HEADER_TYPE)
    if not kind or metadata[kind] not in (_IS_DICTIONARY, _IS_BATCH):
        return False
    batch = _table(metadata, message, _HEADER)
    if metadata[kind] == _IS_DICTIONARY:
        batch = _table(metadata, batch, _DICTIONARY_BATCH)
    return _slot(metadata, batch, _BATCH_COMPRESSION) != 0


def _slot(data: bytes, table: int, slot: int) -> int:
    """Where a field of a Flatbuffers table is; 0 if it is not there."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    length, at = struct.unpack_from("<H", data, vtable)[0], 4 + 2 * slot
    offset: int = struct.unpack_from("<H", data, vtable + at)[0] if at < length else 0
    return table + offset if offset else 0


def _table(data: bytes, table: int, slot: int) -> int:
    """The table that a field refers to. ValueError if there is none."""
    field_at = _slot(data, table, slot)
    if not field_at:
        raise ValueError("a message without a header")
    return field_at + _u32(data, field_at)


def _u32(data: bytes, at: int) -> int:
    number: int = struct.unpack_from("<I", data, at)[0]
    return number
