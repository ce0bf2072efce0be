"""DataFrames and Series of pandas: index, attributes and column types stay.

object         object, with the nulls it had      Categorical    unordered, of the tokens or values in the column
string, str    the same                           others         the type that pandas gives to text
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.analytics.columns import status_name
from quorumvault.analytics.frames import Replaced
from quorumvault.analytics.metadata import without_values
from quorumvault.analytics.texts import is_text, of_type
from quorumvault.client.scalars import plain
from quorumvault.errors import ColumnError


@dataclass(frozen=True, slots=True)
class PandasFrame:
    """A pandas.DataFrame, or a subclass of it."""

    frame: Any = field(repr=False)
    is_array: ClassVar = False

    @property
    def names(self) -> Sequence[Any]:
        return list(self.frame.columns)

    def column(self, name: Any, *, cast: bool) -> Any:
        return _arrow(name, self.frame[name], cast)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        found = self.frame.assign()  # copies no more than this version of pandas requires
        for each in columns:
            place = found.columns.get_loc(each.name)
            found.isetitem(place, _like(self.frame[each.name], each))
            if each.status is not None:
                found.insert(place + 1, status_name(each.name), pd.Series(each.status.to_pandas().array, index=found.index))
        _leave_out(self.frame, found, columns)
        return found


@dataclass(frozen=True, slots=True)
class PandasSeries:
    """A pandas.Series."""

    series: Any = field(repr=False)
    is_array: ClassVar = True

    @property
    def names(self) -> Sequence[Any]:
        return [self.series.name]

    def column(self, name: Any, *, cast: bool) -> Any:
        return _arrow(name, self.series, cast)

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        found = _like(self.series, columns[0]).rename(self.series.name)
        found.attrs = self.series.attrs
        _leave_out(self.series, found, columns)
        return found


def _arrow(name: Any, series: Any, cast: bool) -> Any:
    """Returns a series in Arrow. A series of nulls, to which pandas gives any type, has the type null."""
    if series.isna().all():
        return pa.chunked_array([pa.nulls(len(series))])
    if isinstance(series.dtype, pd.CategoricalDtype):
        kinds = _arrow(name, pd.Series(series.cat.categories), cast)
        codes = series.cat.codes.to_numpy()
        return kinds.take(pa.array(codes, mask=codes < 0))
    try:
        found = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        found = None
    if series.dtype == object and (found is None or not _is_uniform(found)):
        found = _of_objects(name, series, cast)
    elif series.dtype == object and not is_text(found.type):
        _require_one_form(name, series)
    if found is None:
        raise ColumnError(f"column {name} is {series.dtype}: only text can be tokenized")
    if pa.types.is_floating(found.type):
        raise ColumnError(
            f"column {name} is {series.dtype}, whose text is not exact; pandas makes that of whole numbers if one is missing: "
            f'read the column as text, dtype={{"{name}": "string"}}'
        )
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def _is_uniform(found: Any) -> bool:
    """Returns whether all objects are text, or all of another kind: pyarrow converts text among bytes to bytes."""
    return not (pa.types.is_binary(found.type) or pa.types.is_large_binary(found.type))


def _require_one_form(name: Any, series: Any) -> None:
    """Raises ColumnError for objects that Arrow would change: a time beside a date to a date, 2.5 beside 1.10 to 2.50."""
    forms: dict[Any, int] = {}
    for row, value in enumerate(map(plain, series)):
        if value is not None:
            places = value.as_tuple().exponent if isinstance(value, Decimal) else None
            forms.setdefault((type(value), places), row)
    if len(forms) > 1:
        _, row = list(forms.values())[:2]
        raise ColumnError(
            f"column {name} has another type of value, or a number of other decimal places, in row {row} than before: make all "
            "of them text in the form that you want"
        )


def _of_objects(name: Any, series: Any, cast: bool) -> Any:
    """Returns objects of several kinds as texts. Raises ColumnError for one that is neither text nor cast to text."""
    texts: list[str | None] = []
    for row, value in enumerate(map(plain, series)):
        if isinstance(value, str):
            _require_unicode(name, row, value)
        elif value is not None:
            if not isinstance(value, int) or not cast:
                kind = type(value).__name__
                hint = f'; add cast="{name}" to take the text of whole numbers and booleans' if isinstance(value, int) else ""
                raise ColumnError(f"column {name} has a value of type {kind} in row {row}, and only text is tokenized{hint}")
            value = str(value).lower() if isinstance(value, bool) else str(value)
        texts.append(value)
    return pa.array(texts, pa.large_utf8())


def _require_unicode(name: Any, row: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ColumnError(f"column {name} has a lone surrogate in row {row}, which is no Unicode text") from None


def _like(own: Any, each: Replaced) -> Any:
    """Returns the replacement of a series, with the same index and, if its type is one of text, the same type."""
    if each.texts.null_count == len(each.texts) and not _has_categories(own.dtype):
        return own
    if isinstance(own.dtype, pd.CategoricalDtype):
        values: Any = _categorical(own.dtype.categories.dtype, each.result)
    elif own.dtype == object:
        values = own.to_numpy(dtype=object, copy=True)
        there = pc.is_valid(each.texts).to_numpy()
        values[there] = np.array(each.result.to_pylist(), dtype=object)[there]
    else:
        values = _of_dtype(own.dtype, each.result)
    return pd.Series(values, index=own.index, dtype=own.dtype if own.dtype == object else None)


def _has_categories(kind: Any) -> bool:
    """Returns whether the type may list values that are in no row."""
    of_arrow = isinstance(kind, pd.ArrowDtype) and pa.types.is_dictionary(kind.pyarrow_dtype)
    return of_arrow or isinstance(kind, pd.CategoricalDtype)


def _categorical(kind: Any, result: Any) -> Any:
    """Returns a categorical with its categories sorted: any other order could reveal the order of the replaced texts."""
    encoded = result.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary)
    categories = _of_dtype(kind, encoded.dictionary.take(order))
    places = np.empty(len(order), dtype=np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    codes = encoded.indices.fill_null(-1).to_numpy()
    return pd.Categorical.from_codes(np.where(codes < 0, -1, places[codes] if len(places) else -1), categories=categories)


def _of_dtype(kind: Any, result: Any) -> Any:
    """Returns an array of a pandas type: ``kind`` if it is a type of text, else the text type of the same family."""
    if isinstance(kind, pd.ArrowDtype):
        chunks = of_type(result, kind.pyarrow_dtype)
        return pd.ArrowDtype(chunks.type).__from_arrow__(chunks)
    if isinstance(kind, pd.StringDtype):
        return kind.__from_arrow__(pa.chunked_array([result]))
    if kind == np.dtype(object):
        return np.array(result.to_pylist(), dtype=object)
    if getattr(kind, "na_value", None) is pd.NA:
        return pd.array(result.to_pylist(), dtype="string")
    return pd.Series(result.to_pylist()).array


def _leave_out(own: Any, found: Any, columns: Sequence[Replaced]) -> None:
    """Removes from ``attrs`` the entries that contain a tokenized value. Raises ColumnError if the index contains one."""
    values = [chunk for each in columns if each.status is None for chunk in each.texts.chunks]
    for level in range(own.index.nlevels):
        labels = [label for label in own.index.unique(level) if isinstance(label, str)]
        if labels and any(pc.any(pc.is_in(pa.array(labels, pa.large_utf8()), texts)).as_py() for texts in values):
            raise ColumnError("the index has values of a column to tokenize: use reset_index(), then name both or drop it")
    said = {str(key): _said(value) for key, value in own.attrs.items()}
    _, left_out = without_values(pa.schema([], said or None), lambda: values)
    if left_out:
        found.attrs = {key: value for key, value in own.attrs.items() if str(key) not in left_out}
        warnings.warn(f"left out of attrs, since values of the columns are in it: {', '.join(left_out)}", stacklevel=2)


def _said(value: Any) -> str:
    """Returns the text of an attribute, to search for values."""
    try:
        return json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
