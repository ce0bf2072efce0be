"""INT96: the type in which Hive, Impala and Spark write times. It counts nanoseconds, in any year.

DuckDB reads INT96 as microseconds, and so does this module. pyarrow would read 64-bit nanoseconds, in which times before 1677 and
after 2262 become other times.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quorumvault.errors import ColumnError
from quorumvault.files.sources import Source

#: The unit for pyarrow's reader.
UNIT: Final = "us"
_ROWS: Final = 1 << 16
_PARTS: Final = 1000


def require_whole_microseconds(path: Path, columns: Sequence[str], source: Source) -> None:
    """Raises ColumnError if a column has a time with fractions of a microsecond. ``columns``: those that contain INT96."""
    if not columns:
        return
    with pq.ParquetFile(path, coerce_int96_timestamp_unit=UNIT) as coarse, pq.ParquetFile(path) as fine:
        batches = (file.iter_batches(_ROWS, columns=list(columns)) for file in (coarse, fine))
        for taken, exact in zip(*batches, strict=True):
            for name in columns:
                pairs = zip(_times(taken.column(name)), _times(exact.column(name)), strict=True)
                if any(_has_parts(microseconds, nanoseconds) for microseconds, nanoseconds in pairs):
                    raise ColumnError(
                        f"{source}: column {name} is INT96 with parts of a microsecond, which would not be kept: "
                        "cast it to another type first"
                    )


def _has_parts(microseconds: Any, nanoseconds: Any) -> bool:
    """Returns whether some times have fractions of a microsecond. Nanoseconds that overflow 64 bits are another time."""
    return bool(((nanoseconds // _PARTS == microseconds) & (nanoseconds % _PARTS != 0)).any())


def _times(column: Any) -> Iterator[Any]:
    """Yields the times in a column of any type, as arrays of integers."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        yield column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    elif pa.types.is_map(kind):
        yield from _times(column.keys)
        yield from _times(column.items)
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from _times(column.field(place))
    elif pa.types.is_nested(kind):
        yield from _times(column.values)
