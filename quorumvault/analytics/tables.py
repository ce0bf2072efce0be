"""``quorumvault.tokenize`` and ``detokenize``: for a query in DuckDB, or for any kind of frame.

    import quorumvault as qv
    tokens = qv.tokenize(df, columns="ssn")
    qv.detokenize(tokens, columns="ssn")
    qv.detokenize(con, "from 'claims.parquet'", columns="ssn").show()

This module looks for packages of frames among the imported modules: a caller with a frame has imported its package.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

import duckdb
import pyarrow as pa

from quorumvault.analytics.duckdb import ConnectionOf, TableSource, of_query
from quorumvault.analytics.frames import Casts, Columns, Frame, Request, replaced_at_once
from quorumvault.analytics.join import Connection
from quorumvault.analytics.pyarrow import ArrowArray, ArrowBatch, ArrowTable, of_capsule, through_reader
from quorumvault.client import Client
from quorumvault.client.sync import client_or_own
from quorumvault.errors import ColumnError

FrameT = TypeVar("FrameT")
_Missing = Literal["null", "error"]


@overload
def tokenize(
    con: duckdb.DuckDBPyConnection,
    /,
    source: TableSource,
    columns: str | Sequence[str],
    *,
    cast: str | Sequence[str] | Literal[True] = (),
    client: Client | None = None,
) -> duckdb.DuckDBPyRelation: ...
@overload
def tokenize(frame: FrameT, columns: Columns = None, /, *, cast: Casts = (), client: Client | None = None) -> FrameT: ...
@overload
def tokenize(frame: FrameT, /, *, columns: Columns, cast: Casts = (), client: Client | None = None) -> FrameT: ...
def tokenize(data: Any, /, source: Any = None, columns: Any = None, *, cast: Any = (), client: Client | None = None) -> Any:
    """Returns ``data`` with tokens, all of one epoch, in place of the values in ``columns``; nulls stay null.

        qv.tokenize(df, columns=["ssn", "mrn"])
        qv.tokenize(con, "from df join claims using (id)", columns="ssn")

    A frame returns a frame of the same kind, with its rows in order and everything else unchanged: index, types, metadata. So
    does a series or an array, without ``columns``. A LazyFrame and a RecordBatchReader are looked up when they are evaluated;
    ``client`` must be open then. Frames of other packages that narwhals supports (Modin, cuDF) keep their kind. Any other object
    with Arrow's PyCapsule interface returns pyarrow's. A list returns the result of ``Client.tokenize``. A query on a DuckDB
    connection may name the caller's frames; the rows returned are in a temporary table.

    Text is tokenized. Numbers, dates and booleans are tokenized only if their columns are also in ``cast`` (True: all), as the
    text that DuckDB writes: a ZIP code read as BIGINT has lost its zeros and gets another token than the text. FLOAT and DOUBLE
    are refused. Without ``client`` the function makes one from the environment (QUORUMVAULT_URL, QUORUMVAULT_API_KEY) and closes
    it. Each distinct text is sent once.

    Raises ColumnError for a column that is missing or not text, TypeError for columns or casts of a list, and the client's
    errors; AlreadyTokenized and ValueTooLarge name rows, counted from 0.
    """
    request = Request("tokenize", columns, cast)
    if isinstance(data, duckdb.DuckDBPyConnection):
        return _of_query(data, source, request, client)
    request = replace(request, columns=_columns(source, columns))
    if isinstance(data, list | tuple):
        _require_plain(request)
        with client_or_own(client) as vault:
            return vault.tokenize(data)
    return _of_frame(data, request, client)


@overload
def detokenize(
    con: duckdb.DuckDBPyConnection,
    /,
    source: TableSource,
    columns: str | Sequence[str],
    *,
    missing: _Missing = "null",
    client: Client | None = None,
) -> duckdb.DuckDBPyRelation: ...
@overload
def detokenize(
    frame: FrameT, columns: Columns = None, /, *, missing: _Missing = "null", client: Client | None = None
) -> FrameT: ...
@overload
def detokenize(frame: FrameT, /, *, columns: Columns, missing: _Missing = "null", client: Client | None = None) -> FrameT: ...
def detokenize(
    data: Any, /, source: Any = None, columns: Any = None, *, missing: _Missing = "null", client: Client | None = None
) -> Any:
    """Returns ``data`` with values in place of the tokens in ``columns``. ``data`` may be anything that ``tokenize`` takes.

    Adds a column NAME_status beside each: ``ok``, ``null``, ``not_found``, ``not_token`` (other text, which is never sent), or
    ``not_text`` (the value is a number or a boolean: use Client.detokenize). The value is null unless the status is ``ok``; with
    ``missing="error"`` any of the last three raises TokensNotFound. A series, an array and a list have no place for a status: a
    token without a value is null there, and for an array ``not_text`` raises NotText.

    Raises ColumnError for a column that is missing or not text, duckdb.Error for a faulty query, and the client's errors: an
    outage is never null. A connection stays usable, and keeps nothing of a failed call.
    """
    if missing not in ("null", "error"):
        raise ValueError('missing is "null" or "error"')
    request = Request("detokenize", columns, strict=missing == "error")
    if isinstance(data, duckdb.DuckDBPyConnection):
        return _of_query(data, source, request, client)
    request = replace(request, columns=_columns(source, columns))
    if isinstance(data, list | tuple):
        _require_plain(request)
        with client_or_own(client) as vault:
            return [result.value for result in vault.detokenize(data, missing=missing)]
    return _of_frame(data, request, client)


def _columns(second: Any, named: Any) -> Any:
    """Returns the columns of a frame, which may be the second argument. Raises TypeError."""
    if second is not None and named is not None:
        raise TypeError("of a frame, only columns are to be named; a query goes with a connection of DuckDB as first argument")
    return named if second is None else second


def _require_plain(request: Request) -> None:
    """Raises TypeError for columns or casts of a list. A list is looked up as it is: a number in it gets a typed token."""
    if request.columns is not None or request.casts:
        raise TypeError("a list has no columns to name or to cast: give str(number) for the token of its text, or give a frame")


def _of_query(con: Connection, source: Any, request: Request, client: Client | None) -> duckdb.DuckDBPyRelation:
    """Runs a request on a query. Raises TypeError without a query, ColumnError without columns."""
    if source is None:
        raise TypeError("a connection of DuckDB goes with a query or a relation, and columns")
    if request.columns is None:
        raise ColumnError('name the columns, such as columns="ssn"')
    return of_query(con, source, request, client)


def _of_frame(data: Any, request: Request, client: Client | None) -> Any:
    """Runs a request on a frame. Raises TypeError if ``data`` is not a frame."""

    def at_once(frame: Frame) -> Any:
        with client_or_own(client) as vault:
            return replaced_at_once(frame, request, vault)

    if isinstance(data, duckdb.DuckDBPyRelation):
        return _of_query(ConnectionOf(data), data, request, client)
    if isinstance(data, pa.RecordBatchReader):
        return through_reader(data, request, partial(client_or_own, client))
    frame = _of_arrow(data) or _of_pandas(data)
    if frame is not None:
        return at_once(frame)
    if _is_of("polars", ("LazyFrame",), data):
        from quorumvault.analytics.polars import lazily

        return lazily(data, request, at_once)
    frame = _of_polars(data)
    if frame is not None:
        return at_once(frame)
    narwhals: Any = sys.modules.get("narwhals")
    if narwhals is not None and isinstance(data, narwhals.DataFrame | narwhals.LazyFrame | narwhals.Series):
        return narwhals.from_native(_of_frame(data.to_native(), request, client), allow_series=True)
    from quorumvault.analytics.narwhals import of_narwhals

    frame = of_narwhals(data) or of_capsule(data)
    if frame is None:
        raise TypeError(_not_a_frame(data))
    return at_once(frame)


def _of_arrow(data: Any) -> Frame | None:
    if isinstance(data, pa.Table):
        return ArrowTable(data)
    if isinstance(data, pa.RecordBatch):
        return ArrowBatch(data)
    return ArrowArray(data) if isinstance(data, pa.Array | pa.ChunkedArray) else None


def _of_pandas(data: Any) -> Frame | None:
    if not _is_of("pandas", ("DataFrame", "Series"), data):
        return None
    from quorumvault.analytics.pandas import PandasFrame, PandasSeries

    return PandasFrame(data) if _is_of("pandas", ("DataFrame",), data) else PandasSeries(data)


def _of_polars(data: Any) -> Frame | None:
    if not _is_of("polars", ("DataFrame", "Series"), data):
        return None
    from quorumvault.analytics.polars import PolarsFrame, PolarsSeries

    return PolarsFrame(data) if _is_of("polars", ("DataFrame",), data) else PolarsSeries(data)


def _is_of(package: str, kinds: Sequence[str], data: Any) -> bool:
    """Returns whether ``data`` is of one of these classes of a package; False if the package is not imported."""
    imported = sys.modules.get(package)
    return imported is not None and isinstance(data, tuple(getattr(imported, kind) for kind in kinds if hasattr(imported, kind)))


def _not_a_frame(data: Any) -> str:
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    if kind.startswith("pyspark."):
        return "of a DataFrame of Spark: quorumvault.spark.tokenize(df, columns) and quorumvault.spark.detokenize"
    return (
        f"{kind} is no frame that is known here: give a frame of pandas, Polars, pyarrow or DuckDB, one with __arrow_c_stream__, "
        "or a connection of DuckDB and a query"
    )
