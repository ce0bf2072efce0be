"""The envelope of an Arrow IPC stream with one text column: finds the buffers, and checks that they lie inside the body.

    body -> messages: length, Flatbuffers metadata, buffers -> Column (from the schema), Batch, Batch, ...

The bytes are untrusted, and pyarrow trusts what it reads, so pyarrow's reader never sees them. This module follows only the
metadata that such a stream must have, at most one step deep, and checks that each step is inside the body. It skips all other
metadata unread, however much there is. arrow_column.py checks the contents of the buffers.

https://arrow.apache.org/docs/format/Columnar.html has the format; the slots are those of its Message.fbs and Schema.fbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import Final

from quorumvault.config.limits import Limits
from quorumvault.errors import Invalid, Malformed, TooManyItems

_BYTE, _U16, _I16, _I32, _U32, _I64 = (Struct(f"<{code}") for code in "BHhiIq")
#: A FieldNode: rows and nulls; a Buffer: where it starts in the message's buffers, and its length.
_PAIR: Final = Struct("<qq")
#: Precedes a message's length, except from writers older than 2019.
_CONTINUATION: Final = -1
#: Messages and buffers start at multiples of this.
_ALIGNMENT: Final = 8
#: Versions of the metadata. Text is the same in both.
_V4, _V5 = 3, 4
_UTF8, _LARGE_UTF8 = 5, 20
_INDEX_BITS: Final = (8, 16, 32, 64)
#: The kinds of a message's header.
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
#: The slots of each table, by its name in Message.fbs and Schema.fbs.
_MESSAGE_VERSION, _MESSAGE_KIND, _MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = range(4)
_SCHEMA_ENDIANNESS, _SCHEMA_FIELDS = range(2)
_FIELD_NAME, _FIELD_NULLABLE, _FIELD_KIND, _FIELD_TYPE, _FIELD_DICTIONARY, _FIELD_CHILDREN = range(6)
_ENCODING_ID, _ENCODING_INDEX = range(2)
_INT_BITS, _INT_SIGNED = range(2)
_DICTIONARY_ID, _DICTIONARY_ENTRIES, _DICTIONARY_IS_DELTA = range(3)
_BATCH_ROWS, _BATCH_NODES, _BATCH_BUFFERS, _BATCH_COMPRESSION, _BATCH_VARIADIC = range(5)


@dataclass(frozen=True, slots=True)
class Column:
    """The column of a schema. ``large``: offsets have 64 bits, not 32. ``index``: the type of a dictionary's indices as numpy
    spells it (``<i4``), and ``dictionary`` its id; None if the column has none."""

    name: bytes
    large: bool
    nullable: bool
    index: str | None = None
    dictionary: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """``buffers`` are places in the body: validity, then indices, or offsets and text. ``nulls`` is what the sender says, -1 if
    nothing. ``entries``: they are entries of the dictionary, in place of those that were there, or after them (``delta``)."""

    rows: int
    nulls: int
    buffers: tuple[range, ...]
    entries: bool = False
    delta: bool = False


def broken(why: str) -> Malformed:
    """The refusal of a body; ``why`` has none of its bytes."""
    return Malformed(f"the body is not a valid stream of Arrow record batches: {why}")


def read_envelope(body: bytes, limits: Limits) -> tuple[Column, list[Batch]]:
    """The column and its batches in order, their rows counted. Raises Malformed; Invalid for another number of columns, or for
    compression; TooManyItems."""
    try:
        messages = _messages(body)
        column = _column(*next(messages, (None, range(0))))
        batches: list[Batch] = []
        rows = 0
        for message, buffers in messages:
            if len(batches) == limits.arrow_batches:
                raise TooManyItems(f"a stream has at most {limits.arrow_batches} batches here; send fewer and larger ones")
            batch = _batch(message, buffers, column)
            batches.append(batch)
            rows += 0 if batch.entries else batch.rows
            if rows > limits.items:
                raise TooManyItems(f"a request has at most {limits.items} rows here (GET /limits); send them in several requests")
    except error:
        raise broken("it ends in the middle of something") from None
    return column, batches


class _Table:
    """A Flatbuffers table in ``data``. Raises struct.error or Malformed for anything that would lie outside."""

    __slots__ = ("_at", "_data", "_slots", "_vtable")

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - _number(_I32, data, at)
        if self._vtable < 0:  # the one step that goes back; struct would count such a place from the end
            raise broken("its metadata points outside of itself")
        self._slots = (_number(_U16, data, self._vtable) - 4) // 2

    def _place(self, slot: int) -> int:
        """The place of a field; 0 if the table lacks it."""
        offset = _number(_U16, self._data, self._vtable + 4 + 2 * slot) if slot < self._slots else 0
        return self._at + offset if offset else 0

    def number(self, kind: Struct, slot: int) -> int:
        """A number field; 0 if the table lacks it."""
        place = self._place(slot)
        return _number(kind, self._data, place) if place else 0

    def _referred(self, slot: int) -> int:
        """The place that a field refers to; 0 if the table lacks the field."""
        place = self._place(slot)
        return place + _number(_U32, self._data, place) if place else 0

    def has(self, slot: int) -> bool:
        return self._place(slot) != 0

    def table(self, slot: int) -> _Table:
        at = self._referred(slot)
        if not at:
            raise broken("its metadata lacks something")
        return _Table(self._data, at)

    def count(self, slot: int) -> int:
        """The length of a vector; 0 if the table lacks it."""
        at = self._referred(slot)
        return _number(_U32, self._data, at) if at else 0

    def first(self, slot: int) -> _Table:
        """The first of a vector of tables that is not empty."""
        at = self._referred(slot) + _U32.size
        return _Table(self._data, at + _number(_U32, self._data, at))

    def pairs(self, slot: int, count: int) -> list[tuple[int, int]]:
        """A vector of structs, each of two numbers. Raises Malformed unless it has ``count`` of them."""
        if self.count(slot) != count:
            raise broken("it has other buffers than a column of its type")
        at = self._referred(slot) + _U32.size
        return [_PAIR.unpack_from(self._data, at + index * _PAIR.size) for index in range(count)]

    def text(self, slot: int) -> bytes:
        at = self._referred(slot)
        return bytes(self._data[at + _U32.size : at + _U32.size + _number(_U32, self._data, at)]) if at else b""


def _number(kind: Struct, data: memoryview, at: int) -> int:
    number: int = kind.unpack_from(data, at)[0]
    return number


def _messages(body: bytes) -> Iterator[tuple[_Table, range]]:
    """Each message's metadata, and the place of its buffers in the body."""
    data, at = memoryview(body), 0
    while at < len(body):
        length, at = _number(_I32, data, at), at + _I32.size
        if length == _CONTINUATION:
            length, at = _number(_I32, data, at), at + _I32.size
        if length == 0:
            if at != len(body):
                raise broken("there is more after its end")
            return
        metadata = data[at : at + length] if length > 0 else data[:0]
        start = at + length
        message = _Table(metadata, _number(_U32, metadata, 0))
        if message.number(_I16, _MESSAGE_VERSION) not in (_V4, _V5):
            raise broken("its version is neither 4 nor 5")
        size = message.number(_I64, _MESSAGE_BODY_LENGTH)
        if start % _ALIGNMENT or not 0 <= size <= len(body) - start:
            raise broken("a message is not where it should be, or has another length")
        yield message, range(start, start + size)
        at = start + size


def _column(message: _Table | None, buffers: range) -> Column:
    """The one column of a schema."""
    if message is None or message.number(_BYTE, _MESSAGE_KIND) != _SCHEMA or buffers:
        raise broken("it does not begin with a schema")
    schema = message.table(_MESSAGE_HEADER)
    if schema.number(_I16, _SCHEMA_ENDIANNESS) != 0:
        raise broken("its numbers are big-endian, and little-endian ones are taken here")
    if schema.count(_SCHEMA_FIELDS) != 1:
        raise Invalid("send a stream of one column, value or token")
    field = schema.first(_SCHEMA_FIELDS)
    kind = field.number(_BYTE, _FIELD_KIND)
    if kind not in (_UTF8, _LARGE_UTF8) or field.count(_FIELD_CHILDREN):
        raise _not_text()
    name, nullable = field.text(_FIELD_NAME), bool(field.number(_BYTE, _FIELD_NULLABLE))
    if not field.has(_FIELD_DICTIONARY):
        return Column(name, kind == _LARGE_UTF8, nullable)
    encoding = field.table(_FIELD_DICTIONARY)
    return Column(name, kind == _LARGE_UTF8, nullable, _index(encoding), encoding.number(_I64, _ENCODING_ID))


def _index(encoding: _Table) -> str:
    """Numpy's name of the type of a dictionary's indices."""
    index = encoding.table(_ENCODING_INDEX)
    bits = index.number(_I32, _INT_BITS)
    if bits not in _INDEX_BITS:
        raise _not_text()
    return f"<{'i' if index.number(_BYTE, _INT_SIGNED) else 'u'}{bits // 8}"


def _not_text() -> Malformed:
    return Malformed(
        "the column is of another type than utf8, large_utf8, or a dictionary of one of them: cast it before it is sent"
    )


def _batch(message: _Table, place: range, column: Column) -> Batch:
    """A message after the schema."""
    kind = message.number(_BYTE, _MESSAGE_KIND)
    if kind not in (_DICTIONARY, _BATCH):
        raise broken("there is another message between its batches")
    header = message.table(_MESSAGE_HEADER)
    entries = kind == _DICTIONARY
    delta = False
    if entries:
        if column.index is None or header.number(_I64, _DICTIONARY_ID) != column.dictionary:
            raise broken("it has a dictionary that no column refers to")
        delta = header.number(_BYTE, _DICTIONARY_IS_DELTA) != 0
        header = header.table(_DICTIONARY_ENTRIES)
    if header.has(_BATCH_COMPRESSION):
        raise Invalid("send the stream without compression of its buffers")
    rows = header.number(_I64, _BATCH_ROWS)
    ((length, nulls),) = header.pairs(_BATCH_NODES, 1)
    if rows < 0 or length != rows or not -1 <= nulls <= rows or header.count(_BATCH_VARIADIC):
        raise broken("a batch has another number of rows than its column")
    places = header.pairs(_BATCH_BUFFERS, 3 if entries or column.index is None else 2)
    return Batch(rows, nulls, tuple(_buffer(start, size, place) for start, size in places), entries, delta)


def _buffer(start: int, size: int, place: range) -> range:
    if start < 0 or size < 0 or start % _ALIGNMENT or start + size > len(place):
        raise broken("a buffer is not inside of its message, or not aligned")
    return range(place.start + start, place.start + start + size)
