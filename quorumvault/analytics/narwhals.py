"""Frames in memory of any package that narwhals supports, such as Modin and cuDF: other columns and the index stay."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import narwhals as nw
import pyarrow as pa

from quorumvault.analytics.columns import status_name
from quorumvault.analytics.frames import Frame, Replaced


@dataclass(frozen=True, slots=True)
class NarwhalsFrame:
    """A frame that narwhals recognizes as a DataFrame."""

    frame: Any = field(repr=False)
    is_array: ClassVar = False

    @property
    def names(self) -> Sequence[str]:
        names: list[str] = self.frame.columns
        return names

    def column(self, name: str, *, cast: bool) -> Any:
        return _arrow(self.frame[name])

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        kind, order, made = self.frame.implementation, list(self.names), []
        for each in columns:
            made.append(nw.new_series(each.name, each.result.to_pylist(), nw.String(), backend=kind))
            if each.status is not None:
                made.append(nw.new_series(status_name(each.name), each.status.to_pylist(), nw.String(), backend=kind))
                order.insert(order.index(each.name) + 1, status_name(each.name))
        return self.frame.with_columns(*made).select(order).to_native()


@dataclass(frozen=True, slots=True)
class NarwhalsSeries:
    """A series that narwhals recognizes as a Series."""

    series: Any = field(repr=False)
    is_array: ClassVar = True

    @property
    def names(self) -> Sequence[str]:
        return [self.series.name]

    def column(self, name: str, *, cast: bool) -> Any:
        return _arrow(self.series)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        (only,) = columns
        made = nw.new_series(self.series.name, only.result.to_pylist(), nw.String(), backend=self.series.implementation)
        return self.series.to_frame().with_columns(made)[self.series.name].to_native()


def of_narwhals(data: Any) -> Frame | None:
    """Returns ``data`` as a frame; None if narwhals does not know it, or it is not in memory."""
    known = nw.from_native(data, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(known, nw.DataFrame):
        return NarwhalsFrame(known)
    return NarwhalsSeries(known) if isinstance(known, nw.Series) else None


def _arrow(series: Any) -> Any:
    found = series.to_arrow()
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])
