"""Arrow IPC streams built by hand: they follow the format, except where a test says otherwise.

A stream is a list of messages: ``schema()``, ``batch()``, ``dictionary()``. The metadata of a message is a tree of nodes, which
``layout`` turns into Flatbuffers: a Table of fields (None: absent), Tables, Structs, Text, or the bytes of a number.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CONTINUATION = b"\xff\xff\xff\xff"
END = CONTINUATION + bytes(4)
UTF8, LARGE_UTF8, BINARY, INT, NULL, UTF8_VIEW, LARGE_VIEWS = 5, 20, 4, 2, 1, 24, 23
V3, V4, V5 = 2, 3, 4


@dataclass
class Table:
    fields: Sequence[Any]


@dataclass
class Tables:
    """A vector of tables. ``count``: the length to write."""

    tables: Sequence[Table]
    count: int | None = None


@dataclass
class Structs:
    """A vector of structs of two 64-bit numbers."""

    pairs: Sequence[tuple[int, int]]
    count: int | None = None


@dataclass
class Text:
    text: bytes


@dataclass
class Message:
    """A message. ``length``: the length to write for the metadata, if not the true one."""

    metadata: bytes
    buffers: bytes = b""
    prefix: bytes = CONTINUATION
    length: int | None = None

    def encode(self) -> bytes:
        length = len(self.metadata) if self.length is None else self.length
        return self.prefix + struct.pack("<i", length) + self.metadata + self.buffers


def padded(data: bytes, to: int = 8) -> bytes:
    return data + bytes(-len(data) % to)


def i8(number: int) -> bytes:
    return struct.pack("<q", number)


def layout(node: Any, at: int) -> bytes:
    """The bytes of a node at the offset ``at``, a multiple of 8, followed by everything that it refers to."""
    if isinstance(node, Text):
        return padded(struct.pack("<I", len(node.text)) + node.text + b"\0")
    if isinstance(node, Structs):
        # The structs start at multiples of 8, so the length is 4 bytes before one: see _reference.
        count = len(node.pairs) if node.count is None else node.count
        return bytes(4) + struct.pack("<I", count) + b"".join(struct.pack("<qq", *pair) for pair in node.pairs)
    if isinstance(node, Tables):
        count = len(node.tables) if node.count is None else node.count
        return _with_references(struct.pack("<I", count), [(4 + 4 * i, each) for i, each in enumerate(node.tables)], at)
    offsets = [8 + 8 * i if each is not None else 0 for i, each in enumerate(node.fields)]
    vtable = struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), 8 + 8 * len(offsets), *offsets)
    vtable = bytes(-len(vtable) % 8) + vtable
    inline = bytearray(struct.pack("<ii", len(node.fields) * 2 + 4, 0))
    references = []
    for each in node.fields:
        if each is not None and not isinstance(each, bytes):
            references.append((len(inline), each))
        inline += padded(each) if isinstance(each, bytes) else bytes(8)
    return vtable + _with_references(bytes(inline), references, at + len(vtable))


def _with_references(inline: bytes, references: list[tuple[int, Any]], at: int) -> bytes:
    data = bytearray(padded(inline))
    for place, node in references:
        start = len(data)
        data[place : place + 4] = struct.pack("<I", start + _begins(node) - place)
        data += layout(node, at + start)
    return bytes(data)


def _begins(node: Any) -> int:
    """The offset within a node's bytes that references point to."""
    if isinstance(node, Table):
        return (4 + 2 * len(node.fields) + 7) // 8 * 8
    return 4 if isinstance(node, Structs) else 0


def message(kind: int, header: Any, buffers: bytes = b"", *, version: int = V5, size: int | None = None, **more: Any) -> Message:
    """A message of this header type. ``size``: the total size of its buffers that it states."""
    length = i8(len(buffers) if size is None else size)
    root = Table([struct.pack("<h", version), bytes([kind]), header, length])
    metadata = layout(root, 8)
    return Message(padded(struct.pack("<II", 8 + _begins(root), 0) + metadata), buffers, **more)


def field_of(name: bytes = b"value", kind: int = UTF8, *, nullable: bool = True, **more: Any) -> Table:
    return Table(
        [Text(name), bytes([nullable]), bytes([kind]), Table([]), more.get("encoding"), more.get("children", Tables([]))]
    )


def encoding(bits: int | None = 32, *, signed: bool = True, key: int = 0) -> Table:
    index = None if bits is None else Table([struct.pack("<i", bits), bytes([signed])])
    return Table([i8(key), index])


def schema(*fields: Table, endianness: int = 0, count: int | None = None, **more: Any) -> Message:
    return message(1, Table([struct.pack("<h", endianness), Tables(fields or (field_of(),), count)]), **more)


@dataclass
class Rows:
    """A record batch: its buffers, and what its metadata say of them. ``places``: the offset and length of each buffer."""

    buffers: Sequence[bytes]
    rows: int
    nulls: int = 0
    length: int | None = None
    nodes: int | None = None
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int | None = None
    compression: Table | None = None
    variadic: Structs | None = None

    def header(self) -> Table:
        places, at = [], 0
        for index, buffer in enumerate(self.buffers):
            places.append(self.places.get(index, (at, len(buffer))))
            at += len(padded(buffer))
        nodes = Structs([(self.rows if self.length is None else self.length, self.nulls)], self.nodes)
        return Table([i8(self.rows), nodes, Structs(places, self.count), self.compression, self.variadic])

    def data(self) -> bytes:
        return b"".join(padded(buffer) for buffer in self.buffers)


def batch(rows: Rows, **more: Any) -> Message:
    return message(3, rows.header(), rows.data(), **more)


def dictionary(rows: Rows, *, key: int = 0, delta: bool = False, **more: Any) -> Message:
    return message(2, Table([i8(key), rows.header(), bytes([delta])]), rows.data(), **more)


def offsets(*numbers: int, large: bool = False) -> bytes:
    return struct.pack(f"<{len(numbers)}{'q' if large else 'i'}", *numbers)


def texts(*given: bytes | None, large: bool = False) -> Rows:
    """The rows of a column of text."""
    ends = [0]
    for text in given:
        ends.append(ends[-1] + len(text or b""))
    nulls = sum(text is None for text in given)
    bitmap = bits(*(text is not None for text in given)) if nulls else b""
    return Rows([bitmap, offsets(*ends, large=large), b"".join(text or b"" for text in given)], len(given), nulls)


def bits(*valid: bool) -> bytes:
    return bytes(sum(flag << place for place, flag in enumerate(valid[at : at + 8])) for at in range(0, len(valid), 8))


def indices(*given: int, code: str = "i", valid: Sequence[bool] | None = None) -> Rows:
    bitmap, nulls = (b"", 0) if valid is None else (bits(*valid), len(valid) - sum(valid))
    return Rows([bitmap, struct.pack(f"<{len(given)}{code}", *given)], len(given), nulls)


def stream(*messages: Message, end: bytes = END) -> bytes:
    return b"".join(each.encode() for each in messages) + end
