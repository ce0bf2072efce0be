"""The rows of the parts of a Parquet source: Arrow streams of the replaced columns, read in step with the other columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.files.job import RunError
from quorumvault.files.sources import Source

Numbers: TypeAlias = "np.ndarray[Any, Any]"
#: A row group with more bytes of texts from the vault is written in pieces. A million rows have 54 MB of tokens in a column.
_TEXT_BYTES: Final = 256 << 20


def damaged(source: Source) -> RunError:
    return RunError(f"{source} cannot be read as Parquet: it is no such file, or damaged")


def cuts(sizes: Numbers) -> Iterator[int]:
    """Yields the rows at which to cut a row group, its end included, so that no piece has much more than _TEXT_BYTES of text.

    Few distinct texts can still make a large column: one value of 64 KiB in each of 34,000 rows is more than an Arrow utf8 column
    can hold.
    """
    yield from (np.flatnonzero(np.diff(np.cumsum(sizes) // _TEXT_BYTES)) + 1).tolist()
    yield len(sizes)


def repeated(rows: Any) -> set[str]:
    """Returns the text columns whose distinct texts have at most half as many bytes as all their rows."""
    found = set()
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if not pa.types.is_dictionary(column.type):
            continue
        once = total = 0
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary).fill_null(0).to_numpy()
            times = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(lengths))
            once += int(lengths[times > 0].sum())
            total += int((lengths * times).sum())
        if 2 * once <= total:
            found.add(name)
    return found


class PartRows:
    """Rows of consecutive Arrow streams, as many at a time as the caller asks for, with the bytes of each row's texts.

    Each column of the streams comes from one column of ``source``. In a damaged file, columns may be shorter than it claims.
    """

    def __init__(self, paths: Sequence[Path], schema: Any, source: Source) -> None:
        self._schema = schema
        self._source = source
        self._batches = (batch for path in paths for batch in _stream(path))
        self._rest: tuple[Any, Numbers] | None = None

    def take(self, count: int) -> tuple[Any, Numbers]:
        """Returns the next ``count`` rows, and the bytes of each row's texts. Raises RunError if fewer rows are left."""
        taken: list[Any] = []
        sizes = [np.zeros(0, np.int64)]
        while count:
            found = self._rest or next(self._batches, None)
            if found is None:
                raise damaged(self._source)
            batch, lengths = found
            taken.append(batch.slice(0, count))
            sizes.append(lengths[:count])
            self._rest = (batch.slice(count), lengths[count:]) if len(batch) > count else None
            count -= len(taken[-1])
        return pa.Table.from_batches(taken, self._schema), np.concatenate(sizes)

    def left(self) -> bool:
        """Returns whether any rows are left."""
        return self._rest is not None or any(len(batch) for batch, _ in self._batches)


def _stream(path: Path) -> Iterator[tuple[Any, Numbers]]:
    with pa.OSFile(str(path), "rb") as file:
        for batch in pa.ipc.open_stream(file):
            yield batch, _text_bytes(batch)


def _text_bytes(batch: Any) -> Numbers:
    """Returns, for each row, the bytes of its texts in all columns together."""
    total = np.zeros(len(batch), np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            total += lengths.fill_null(0).to_numpy(zero_copy_only=False)
    return total
