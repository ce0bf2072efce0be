"""Converts an Arrow column to the texts to look up, by DuckDB's rules and in DuckDB's spelling, as for tables and files."""

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.analytics.columns import require_text
from quorumvault.errors import ColumnError


def texts_of(name: str, column: Any, *, may_cast: bool, cast: bool) -> Any:
    """Returns a chunked array of large_utf8. Raises ColumnError unless it is text, or ``may_cast`` and ``cast`` make it text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if is_text(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.large_utf8())
    if isinstance(column.type, pa.BaseExtensionType) and column.type.extension_name != "arrow.uuid":
        raise ColumnError(
            f"column {name} is {column.type.extension_name}: only text can be tokenized"
        )  # else a Period would be a number
    try:
        with duckdb.connect() as con:
            values = con.from_arrow(pa.table({"v": column}))
            require_text(name, values.types[0], may_cast=may_cast, cast=cast)
            found = values.project("cast(v as varchar) as v").to_arrow_table().column(0)
    except (duckdb.Error, pa.ArrowException):
        raise ColumnError(f"column {name} is {column.type}: only text can be tokenized") from None
    return found.cast(pa.large_utf8())


def of_type(texts: Any, kind: Any) -> Any:
    """Returns texts (large_utf8) as a chunked array of their column's former type; of large_utf8 if that was not text."""
    if pa.types.is_dictionary(kind):
        values = pa.chunked_array([texts]).combine_chunks().dictionary_encode()
        return pa.chunked_array([values.cast(pa.dictionary(kind.index_type, kind.value_type))])
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(of_type(texts, kind.value_type), kind.run_end_type)
    return pa.chunked_array(list(_cut(texts, kind)), kind) if is_text(kind) else pa.chunked_array([texts])


def _cut(texts: Any, kind: Any) -> Any:
    """Casts texts in as many pieces as needed: a chunk of utf8 has room for 2 GiB."""
    try:
        yield texts.cast(kind)
    except pa.ArrowInvalid:
        if len(texts) < 2:
            raise
        half = len(texts) // 2
        yield from _cut(texts.slice(0, half), kind)
        yield from _cut(texts.slice(half), kind)


def is_text(kind: Any) -> bool:
    """Returns whether an Arrow type is a type of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
