"""DataFrames, LazyFrames and Series of Polars. A LazyFrame stays lazy: its columns are looked up at each evaluation.

String stays String, and Categorical stays Categorical. An Enum becomes a Categorical, since an Enum's type lists its values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

from quorumvault.analytics.arrow import nothing
from quorumvault.analytics.columns import status_name
from quorumvault.analytics.frames import Replaced, Request, replaced
from quorumvault.errors import ColumnError


@dataclass(frozen=True, slots=True)
class PolarsFrame:
    """A polars.DataFrame."""

    frame: Any = field(repr=False)
    is_array: ClassVar = False

    @property
    def names(self) -> Sequence[str]:
        names: list[str] = self.frame.columns
        return names

    def column(self, name: str, *, cast: bool) -> Any:
        return _arrow(self.frame.get_column(name))

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        by_name = {each.name: each for each in columns}
        series = []
        for own in self.frame.get_columns():
            each = by_name.get(own.name)
            series.append(own if each is None else _like(own, each))
            if each is not None and each.status is not None:
                series.append(pl.Series(status_name(own.name), each.status))
        return self.frame.select(series)


@dataclass(frozen=True, slots=True)
class PolarsSeries:
    """A polars.Series."""

    series: Any = field(repr=False)
    is_array: ClassVar = True

    @property
    def names(self) -> Sequence[str]:
        return [self.series.name]

    def column(self, name: str, *, cast: bool) -> Any:
        return _arrow(self.series)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        return _like(self.series, columns[0])


def lazily(lazy: Any, request: Request, at_once: Callable[[PolarsFrame], Any]) -> Any:
    """Returns a LazyFrame that applies ``at_once`` when it is evaluated. Raises ColumnError at once."""
    schema = replaced(PolarsFrame(lazy.collect_schema().to_frame()), request, nothing).schema
    # No later step may be pushed down before this one: a filter on tokens would be applied to values.
    return lazy.map_batches(
        lambda frame: at_once(PolarsFrame(frame)), predicate_pushdown=False, projection_pushdown=False, schema=schema
    )


def _arrow(series: Any) -> Any:
    try:
        return pa.chunked_array([series.to_arrow()])
    except (pa.ArrowException, pl.exceptions.PolarsError):  # Arrow has no Int128
        raise ColumnError(f"column {series.name} is {series.dtype}: only text can be tokenized") from None


def _like(own: Any, each: Replaced) -> Any:
    if own.dtype == pl.Null:
        return own
    found = pl.Series(own.name, each.result)
    if isinstance(own.dtype, pl.Enum):
        return found.cast(pl.Categorical)
    return found.cast(own.dtype) if isinstance(own.dtype, pl.Categorical) else found
