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
#: A row group that has more bytes of texts from the vault is written in pieces. A million rows have 54 MB of tokens in a column.
_TEXT_BYTES: Final = 256 << 20


def damaged(source: Source) -> RunError:
    return RunError(f"{source} cannot be read as Parquet: it is no such file, or damaged")


def cuts(sizes: Numbers) -> Iterator[int]:
    """Yields the rows at which to cut a row group, its end included, so that no piece has much more than _TEXT_BYTES of text.

    Distinct texts may be few when what is made of them is not: one value of 64 KiB in each of 34,000 rows is more than a column
    of Arrow's utf8 can have.
    """
    yield from (np.flatnonzero(np.diff(np.cumsum(sizes) // _TEXT_BYTES)) + 1).tolist()
    yield len(sizes)


def repeated(rows: Any) -> set[str]:
    """Returns the columns of texts of which each once has at most half of the bytes that all rows have."""
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
    """Rows of Arrow streams, one after the other, as many at a time as are asked for, and the bytes of each row's texts.

    They were read from one column of ``source`` each. In a damaged file the columns are not all as long as it says they are.
    """

    def __init__(self, paths: Sequence[Path], schema: Any, source: Source) -> None:
        self._schema = schema
        self._source = source
        self._batches = (batch for path in paths for batch in _stream(path))
        self._rest: tuple[Any, Numbers] | None = None

    def take(self, count: int) -> tuple[Any, Numbers]:
        """Raises RunError if there are fewer."""
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
        """Returns whether rows are left that were not taken."""
        return self._rest is not None or any(len(batch) for batch, _ in self._batches)


def _stream(path: Path) -> Iterator[tuple[Any, Numbers]]:
    with pa.OSFile(str(path), "rb") as file:
        for batch in pa.ipc.open_stream(file):
            yield batch, _text_bytes(batch)


def _text_bytes(batch: Any) -> Numbers:
    """Returns for each row the bytes of its texts in all columns together."""
    total = np.zeros(len(batch), np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            total += lengths.fill_null(0).to_numpy(zero_copy_only=False)
    return total
