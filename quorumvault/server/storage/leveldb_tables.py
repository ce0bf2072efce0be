"""Reads the blocks of LevelDB's tables without LevelDB, whose iterators stop at the first unreadable block.

    table   data blocks | filter | metaindex | index | footer: (offset, size) of metaindex and of index, varints; magic number
    block   entries | restart points | kind of compression (1) | masked CRC-32C (4)
    entry   shared (varint) | fresh (varint) | length (varint) | the key without its first ``shared`` bytes | value
    index   one entry for each data block: a key >= all keys in the block, and <= all keys in the next -> (offset, size)

Each key is followed by 8 bytes: the number of its write, and whether the write is a put. Only blocks with a valid checksum are
used, and only uncompressed tables, which is how this program writes them.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

from quorumvault.server.storage.leveldb_log import mask

_FOOTER: Final = 48
_MAGIC: Final = (0xDB4775248B80FB57).to_bytes(8, "little")
#: The number of bytes behind each block: its kind of compression, and its checksum.
_TRAILER: Final = 5
_NOT_COMPRESSED: Final = b"\0"
_NUMBER: Final = struct.Struct("<Q")
_PUT: Final = 1


class _Block(NamedTuple):
    """``last``: a key that is not smaller than any key in the block."""

    last: bytes
    offset: int
    size: int


class _Table(NamedTuple):
    path: Path
    blocks: list[_Block]


class Tables:
    """The current tables of the store in this directory. A table never changes; new tables take its place."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._read: dict[str, _Table] = {}
        self._starts: list[bytes] = []

    def starts_after(self, key: bytes, most: int) -> list[bytes]:
        """The next keys, in order and at most ``most``, at which a block after one that contains ``key`` may begin."""
        self._look()
        place = bisect_right(self._starts, key)
        return self._starts[place : place + most]

    def pairs(self, first: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """The pairs of readable blocks from ``first`` on, before ``end``, in the order of keys."""
        self._look()
        found: dict[bytes, tuple[int, bytes | None]] = {}
        for table in self._read.values():
            place = bisect_left(table.blocks, first, key=lambda block: block.last)
            while place < len(table.blocks):
                block = table.blocks[place]
                for key, number, value in _entries_of(table.path, block):
                    if first <= key < end and number >= found.get(key, (0, None))[0]:
                        found[key] = number, value
                if block.last >= end:
                    break
                place += 1
        return [(key, value) for key, (_, value) in sorted(found.items()) if value is not None]

    def _look(self) -> None:
        names = {path.name: path for path in self._store.glob("*.ldb")}
        if names.keys() != self._read.keys():
            self._read = {name: self._read.get(name) or _Table(path, _index_of(path)) for name, path in names.items()}
            starts = {block.last + b"\0" for table in self._read.values() for block in table.blocks}
            # A table whose index is lost ends before the next table of its level begins.
            starts |= {key for table in self._read.values() for key, *_ in _first(table)}
            self._starts = sorted(starts)


def _first(table: _Table) -> list[tuple[bytes, int, bytes | None]]:
    return list(_entries_of(table.path, table.blocks[0]))[:1] if table.blocks else []


def _index_of(path: Path) -> list[_Block]:
    """The blocks in a table's index; empty if its footer or its index is damaged."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _FOOTER))
            footer = file.read()
    except OSError:
        return []
    if not footer.endswith(_MAGIC):
        return []
    numbers = _varints(footer)
    _, _, offset, size = (next(numbers, 0) for _ in range(4))
    blocks = []
    for key, _, value in _entries_of(path, _Block(b"", offset, size)):
        place = _varints(value or b"")
        blocks.append(_Block(key, next(place, 0), next(place, 0)))
    return blocks


def _entries_of(path: Path, block: _Block) -> Iterator[tuple[bytes, int, bytes | None]]:
    """Yield each key with the number of its write, and its value, None for a delete. Yields nothing for a damaged block."""
    try:
        with path.open("rb") as file:
            if block.offset + block.size > path.stat().st_size:  # numbers from a damaged footer
                return
            file.seek(block.offset)
            data = file.read(block.size + _TRAILER)
    except OSError:  # compacted meanwhile
        return
    body, checksum = data[: block.size + 1], data[block.size + 1 :]
    if len(data) != block.size + _TRAILER or body[-1:] != _NOT_COMPRESSED:
        return
    if mask(crc32c(body)) == int.from_bytes(checksum, "little"):
        yield from _entries(body[:-1])


def _entries(block: bytes) -> Iterator[tuple[bytes, int, bytes | None]]:
    restarts = int.from_bytes(block[-4:], "little")
    at, end, key = 0, len(block) - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        (number,) = _NUMBER.unpack(key[-_NUMBER.size :])
        yield key[: -_NUMBER.size], number >> 8, block[at - length : at] if number & 0xFF == _PUT else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number that begins at ``at``, the place behind it): seven bits in each byte, the lowest first."""
    number = shift = 0
    while data[at] & 0x80:
        number, shift, at = number | (data[at] & 0x7F) << shift, shift + 7, at + 1
    return number | data[at] << shift, at + 1


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield number
