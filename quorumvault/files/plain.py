"""Looks for values in clear outside the tokenized columns: in other cells, metadata, statistics, names of folders.

Engines leave out every such place that they know. As the last step before outputs get their names, this module searches the
outputs and their paths for a sample of the values. Since it is a sample, values that it does not find may still be there.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias
from urllib.parse import unquote

from quorumvault.crypto.tokens import is_token
from quorumvault.files.engine import Conversion
from quorumvault.files.job import RunError

#: The sample: the number of rows at the start of a source, and the most values of a column to look for.
ROWS: Final = 1_000
_VALUES: Final = 8
#: Shorter values, dates and plain numbers are not looked for, since they occur by chance.
_LEAST_BYTES: Final = 8
_BY_CHANCE: Final = re.compile(r"\d{4}-\d\d-\d\d.*|[-+]?[\d.,:]*", re.DOTALL)
#: The bytes to read: most files are read whole, larger ones at both ends, where Parquet and DuckDB have their metadata.
_HEAD_BYTES: Final = 64 << 20
_TAIL_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 4 << 20
#: The number of distinct values from which on a sorted order is no coincidence.
_IN_ORDER: Final = 20


#: Opens an output: text as UTF-8 without compression.
Opened: TypeAlias = Callable[[], AbstractContextManager[BinaryIO]]


class InPlain(RunError):
    """A value of a tokenized column is in the output."""


def require_no_folder_of(conversion: Conversion, relative: Path) -> None:
    """Raises InPlain if a Hive partition key is a tokenized column: its values would stay in the paths."""
    keys = {unquote(part.partition("=")[0]).casefold() for part in relative.parts[:-1] if "=" in part}
    for column in conversion.first_values(1) if keys else ():
        if column.casefold() in keys:
            raise InPlain(f"{relative}: folders are named after values of {column}, which would stay: move the files first")


def require_absent(values: Mapping[str, Sequence[str]], output: Opened, relative: Path, source: str) -> None:
    """Raises InPlain if one of the ``values`` of a column is in a finished output, or in its path below the output folder."""
    for column, texts in values.items():
        sample = _sample(texts)
        where = None
        path = unquote(str(relative)).casefold()
        if any(text.casefold() in path for text in sample):
            where = "the path of its file"
        elif sample:
            with output() as content:
                if _has_one(content, [text.encode() for text in sample]):
                    where = "the rest of its rows, or beside them"
        if where is not None:
            raise InPlain(
                f"{source}: values of {column} would leave in plain, in {where}: name all columns that have them, "
                "or give --allow-plain if they may"
            )


def is_in_order(texts: Sequence[str]) -> bool:
    """Returns whether the rows are sorted by these values, so that a row's place reveals something about its value."""
    return len(set(texts)) >= _IN_ORDER and list(texts) in (sorted(texts), sorted(texts, reverse=True))


def _sample(texts: Sequence[str]) -> list[str]:
    distinct = dict.fromkeys(texts)
    fit = (text for text in distinct if len(text.encode()) >= _LEAST_BYTES and not (_BY_CHANCE.fullmatch(text) or is_token(text)))
    return list(islice(fit, _VALUES))


def _has_one(content: BinaryIO, sample: Sequence[bytes]) -> bool:
    """Returns whether ``content`` has a text of the sample, ignoring the case of ASCII letters (``upper(name)`` counts)."""
    lowered = [text.lower() for text in sample]
    chunks = (chunk.lower() for chunk in _chunks(content, max(map(len, sample))))
    return any(_is_whole(chunk, text) for chunk in chunks for text in lowered)


def _is_whole(chunk: bytes, text: bytes) -> bool:
    """Returns whether ``text`` is in ``chunk`` and not part of a longer word."""
    start = chunk.find(text)
    while start >= 0:
        around = chunk[max(0, start - 1) : start] + chunk[start + len(text) : start + len(text) + 1]
        if not any(chr(byte).isalnum() and byte < 0x80 for byte in around):
            return True
        start = chunk.find(text, start + 1)
    return False


def _chunks(content: BinaryIO, overlap: int) -> Iterator[bytes]:
    """Yields the head of the content, and the tail if it can seek, in chunks that overlap by ``overlap`` + 1 bytes."""
    place, held = 0, b""
    while read := content.read(_CHUNK_BYTES):
        yield held + read
        place += len(read)
        held = read[-overlap - 1 :]
        if place == _HEAD_BYTES:
            if not content.seekable():
                return
            tail = content.seek(0, os.SEEK_END) - _TAIL_BYTES
            held = held if tail <= place else b""
            content.seek(max(place, tail))
