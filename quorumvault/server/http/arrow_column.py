"""Reads the texts in the batches of an Arrow stream. All offsets and indices, null rows included, are checked before use.

    offsets    one more than there are rows, never decreasing, all inside the text
    text       UTF-8, and no offset is inside a character, so each text is UTF-8
    validity   a bit for each row, and as many nulls as were announced
    indices    inside the dictionary as of their batch. Arrow allows any index in a null row (pandas writes -1, DuckDB leftover
               memory), so the indices of null rows are skipped unread

numpy checks whole buffers. The checked bytes become pyarrow arrays, with offsets, validity and indices written anew.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from quorumvault.server.http.arrow_ipc import Batch, Column, broken

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Numbers: TypeAlias = NDArray[Any]

#: Bytes that are decoded at a time to check that they are UTF-8. The text, which is thrown away, is up to four times as large.
_PIECE: Final = 256 << 10
#: A batch's number of nulls if its writer did not count them.
_UNTOLD: Final = -1
#: The index of a null row.
_NULL: Final = -1


def read_rows(body: bytes, column: Column, batches: Sequence[Batch]) -> tuple[Any, Any]:
    """Return the distinct texts (large_utf8, no nulls) and for each row the index of its text (int32, null for a null row).

    Raises Malformed.
    """
    if column.index is not None:
        return _of_dictionary(body, column, batches)
    encoded = _joined([_texts(body, column, batch) for batch in batches]).dictionary_encode()
    return encoded.dictionary, encoded.indices


def _of_dictionary(body: bytes, column: Column, batches: Sequence[Batch]) -> tuple[Any, Any]:
    """Entries are numbered through all dictionaries of the stream. A dictionary replaces those before it, or is added to them."""
    dictionaries: list[Any] = []
    pieces = [np.empty(0, np.int64)]
    first = end = 0
    for batch in batches:
        if not batch.entries:
            pieces.append(_places(body, column, batch, first, end))
            continue
        if batch.delta and not dictionaries:
            raise broken("something is added to a dictionary that was not there")
        dictionaries.append(_texts(body, column, batch))
        first, end = first if batch.delta else end, end + batch.rows
    places = np.concatenate(pieces)
    numbers = np.full(end + 1, _NULL, np.int32)  # one for each entry, and the last one, which is at -1 too, for a null
    numbers[places] = 0
    used = np.flatnonzero(numbers[:end] != _NULL)  # the others were not asked about
    encoded = _joined(dictionaries).take(pa.array(used)).dictionary_encode()
    numbers[used], numbers[end] = encoded.indices.fill_null(_NULL).to_numpy(), _NULL
    indices = numbers[places]
    return encoded.dictionary, pa.array(indices, mask=indices == _NULL)


def _joined(arrays: list[Any]) -> Any:
    return pa.concat_arrays(arrays) if arrays else pa.array([], pa.large_utf8())


def _places(body: bytes, column: Column, batch: Batch, first: int, end: int) -> NDArray[np.int64]:
    """Return for each row the number of its entry, of which ``first`` to ``end`` are in force; -1 for a null row."""
    validity, data = batch.buffers
    valid = _valid(body, column, batch, validity)
    indices = _numbers(body, data, np.dtype(column.index), batch.rows)
    asked = indices if valid is None else indices[valid]
    if len(asked) and not 0 <= int(asked.min()) <= int(asked.max()) < end - first:
        raise broken("a row has an entry that is not in the dictionary")
    places = np.full(batch.rows, _NULL, np.int64)
    places[slice(None) if valid is None else valid] = asked.astype(np.int64) + first
    return places


def _texts(body: bytes, column: Column, batch: Batch) -> Any:
    """Return the texts of a batch, large_utf8. Checks the offsets first: the body holds all of them, which bounds the rows."""
    validity, place, text = batch.buffers
    if batch.rows == 0:
        return pa.array([], pa.large_utf8())
    offsets = _numbers(body, place, np.dtype("<i8" if column.large else "<i4"), batch.rows + 1)
    first, last = int(offsets[0]), int(offsets[-1])
    if first < 0 or last > len(text) or bool((offsets[1:] < offsets[:-1]).any()):
        raise broken("the offsets of its texts are not in order, or not inside of the text")
    _require_utf8(body, text.start + first, text.start + last)
    begin = np.frombuffer(body, np.uint8, last, text.start)[offsets[offsets < last]]
    if bool(((begin & 0xC0) == 0x80).any()):
        raise broken("an offset of its texts is inside of a character")
    valid = _valid(body, column, batch, validity)
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    followed = pa.py_buffer(memoryview(body)[text.start : text.start + last])
    return pa.Array.from_buffers(pa.large_utf8(), batch.rows, [bitmap, pa.py_buffer(offsets.astype(np.int64)), followed])


def _require_utf8(body: bytes, start: int, end: int) -> None:
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        for at in range(start, end, _PIECE):
            decode(body[at : min(at + _PIECE, end)])
        decode(b"", final=True)
    except UnicodeDecodeError:
        raise broken("its text is not UTF-8") from None


def _valid(body: bytes, column: Column, batch: Batch, place: range) -> NDArray[np.bool_] | None:
    """Return a mask of the rows that are not null; None if no row is null."""
    if not place:
        if batch.nulls > 0:
            raise broken("it does not say which rows are null")
        return None
    bits = np.unpackbits(_numbers(body, place, np.dtype(np.uint8), (batch.rows + 7) // 8), count=batch.rows, bitorder="little")
    nulls = batch.rows - int(np.count_nonzero(bits))
    if batch.nulls not in (_UNTOLD, nulls):
        raise broken("it has another number of nulls than it says")
    if nulls and not (column.nullable or batch.entries):
        raise broken("it has nulls, and its schema says that there are none")
    return bits.view(np.bool_) if nulls else None


def _numbers(body: bytes, place: range, kind: np.dtype[Any], count: int) -> _Numbers:
    """Return the first ``count`` numbers of a buffer. Raises Malformed if it is shorter."""
    if len(place) < count * kind.itemsize:
        raise broken("a buffer is shorter than its rows need")
    return np.frombuffer(body, kind, count, place.start)
