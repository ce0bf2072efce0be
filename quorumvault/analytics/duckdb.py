"""DuckDB: exchanges tokens and values in its tables, and looks each distinct text up once.

    source -> temporary table -> its distinct texts -> vault (arrow.py) -> left join in the order of the rows -> temporary table

The source is evaluated once: a sampled query would give other rows the second time. The result is in a temporary table of the
connection, named by the relation's ``alias``, until the table is dropped or the connection is closed. The table holds values. So
do the files that DuckDB spills to ``temp_directory``, by default a folder ``.tmp`` in the working directory. Rows keep the
source's order, unless the connection has ``preserve_insertion_order`` off: DuckDB then keeps no order, even of tables.
"""

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from quorumvault import errors
from quorumvault.analytics.arrow import look_up, look_up_distinct
from quorumvault.analytics.columns import (
    ROWS_SHOWN,
    TableOperation,
    in_rows,
    listed,
    quoted,
    require_status_free,
    require_text,
    status_name,
    unlike,
)
from quorumvault.analytics.frames import Request
from quorumvault.analytics.join import AnswerJoin, Connection, number, text_of
from quorumvault.client import Client
from quorumvault.client.sync import client_or_own
from quorumvault.errors import ColumnError, QuorumVaultError, RequestError, TokensNotFound

#: A query, such as "from 'claims.parquet'", or a relation of the same connection.
TableSource: TypeAlias = "str | duckdb.DuckDBPyRelation"

_numbers = itertools.count(1)


def of_query(con: Connection, source: TableSource, request: Request, client: Client | None) -> duckdb.DuckDBPyRelation:
    """Runs ``quorumvault.tokenize`` or ``detokenize`` (tables.py) for a query, or for a relation of the connection."""
    wanted: list[str] = listed(request.columns)
    casts: list[str] = wanted if request.casts is True else listed(request.casts)
    with (
        _input(con, source, wanted, casts, statuses=request.tells) as table,
        client_or_own(client) as vault,
        _looked_up(table, vault, request.operation),
    ):
        return _result(table, f"{request.operation}d", request.strict)


def register(con: duckdb.DuckDBPyConnection, client: Client | None = None) -> Client:
    """Makes SQL functions ``detokenize(token)`` and ``tokenize(value)``, VARCHAR to VARCHAR, for a connection and its cursors.

    They are for queries typed by hand: they ask anew for each 2,048 rows, while ``quorumvault.detokenize`` asks once for each
    text. The tokens of such a batch have one epoch. After a rotation during a query its column has two epochs; a column of
    ``quorumvault.tokenize`` has one. The result is NULL for NULL, for a token that is not found, and for text that is not a
    token. Any error raises duckdb.InvalidInputException with the error's code in its text, and ``client.last_error`` has the
    error itself. A second call replaces the functions. Returns the client, which must live as long as the functions.
    """
    vault = Client() if client is None else client
    operations: tuple[TableOperation, ...] = ("tokenize", "detokenize")
    for operation in operations:
        with contextlib.suppress(duckdb.InvalidInputException):  # there was no function to replace
            con.remove_function(operation)
        function: Any = _scalar(vault, operation)
        con.create_function(
            operation, function, ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special", side_effects=False
        )  # type: ignore[call-overload]
    return vault


@dataclass(frozen=True, slots=True)
class _Input:
    """The rows of a source, in a temporary table. ``number`` makes the names of this call unique.

    ``row`` is SQL for a column with the row numbers, from 0. DuckDB's own row ids are hidden by any column ``rowid``, and change
    when a transaction is committed.
    """

    con: Connection
    number: int
    row: str
    columns: Sequence[str]
    replaced: Sequence[str]
    statuses: bool

    @property
    def table(self) -> str:
        return f"temp.qv_input_{self.number}"

    @property
    def lookup(self) -> str:
        return f"qv_lookup_{self.number}"

    @property
    def join(self) -> AnswerJoin:
        status = "if({own} is null, 'null', {answer}.status)" if self.statuses else None
        return AnswerJoin(self.con, self.table, self.row, self.columns, self.replaced, self.lookup, status)

    def count(self, expression: str) -> int:
        return number(self.con, f"select {expression} from {self.table} i")


@contextlib.contextmanager
def _input(
    con: Connection, source: TableSource, columns: Sequence[str], casts: Sequence[str], statuses: bool
) -> Iterator[_Input]:
    """Evaluates a source, after checking its columns."""
    relation = _query(con, source) if isinstance(source, str) else source
    row = unlike("row", relation.columns)
    replaced = _fit_columns(relation, columns, casts, statuses)
    table = _Input(con, next(_numbers), row, relation.columns, replaced, statuses)
    view = f"qv_source_{table.number}"
    try:
        numbered = f"select row_number() over () - 1 as {row}, * from {view}"
        relation.query(view, f"create temp table qv_input_{table.number} as {numbered}")
        try:
            table.count("count(*)")
        except duckdb.CatalogException:
            raise ValueError("the relation belongs to another connection than the one that is given") from None
        yield table
    finally:
        _drop(con, table.table)


def _query(con: Connection, query: str) -> duckdb.DuckDBPyRelation:
    assert isinstance(con, duckdb.DuckDBPyConnection)
    if [statement.type for statement in con.extract_statements(query)] != [duckdb.StatementType.SELECT]:
        raise ValueError("source is one query that reads rows, such as \"from 'claims.parquet'\", or a relation")
    # DuckDB looks for frames among its caller's variables. These must be the variables of this package's caller.
    names = _callers_names()
    names |= {word: _readable(names[word]) for word in re.findall(r"\w+", query) if word in names}
    names |= {"_quorumvault_sql": con.sql, "_quorumvault_query": query}
    found: duckdb.DuckDBPyRelation = eval("_quorumvault_sql(_quorumvault_query)", names)  # noqa: S307 - a constant text
    return found


def _readable(frame: Any) -> Any:
    """Returns a pandas frame whose nulls DuckDB all reads as NULL, and none as the text ``nan``."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not isinstance(frame, pandas.DataFrame):
        return frame
    found = frame.assign()
    for place, kind in enumerate(frame.dtypes):
        column = frame.iloc[:, place]
        if str(kind) == "object" and column.isna().any():
            values = column.to_numpy(dtype=object, copy=True)
            values[column.isna().to_numpy()] = None
            found.isetitem(place, pandas.Series(values, index=frame.index, dtype=object))
    return found


def _callers_names() -> dict[str, Any]:
    """Returns the variables visible to the function that called into this package."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("quorumvault", "contextlib"):
        frame = frame.f_back
    return {**frame.f_globals, **frame.f_locals}


def _fit_columns(relation: duckdb.DuckDBPyRelation, wanted: Sequence[str], casts: Sequence[str], statuses: bool) -> list[str]:
    """Returns the wanted columns in the source's spelling, since DuckDB ignores the case of names. Raises ColumnError."""
    kinds = dict(zip((name.lower() for name in relation.columns), relation.types, strict=True))
    if len(kinds) < len(relation.columns):
        raise ColumnError("two columns of the source have one name: give one of them another in the query")
    for name in (*wanted, *casts):
        if name.lower() not in kinds:
            raise ColumnError(f"the source has no column {name}; it has {', '.join(relation.columns)}")
    casting = {name.lower() for name in casts}
    chosen = {name.lower() for name in wanted}
    if casting - chosen:
        raise ColumnError(f"cast names {', '.join(sorted(casting - chosen))}, which is not among the columns to tokenize")
    fit = [name for name in relation.columns if name.lower() in chosen]
    for name in fit:
        require_text(name, kinds[name.lower()], may_cast=not statuses, cast=name.lower() in casting)
    if statuses:
        require_status_free("the source", fit, relation.columns)
    return fit


@contextlib.contextmanager
def _looked_up(table: _Input, vault: Client, operation: TableOperation) -> Iterator[None]:
    """Registers ``table.lookup`` with the connection for the block: one row for each distinct text."""
    texts = table.join.distinct()
    try:
        found = look_up_distinct(vault, operation, texts)
    except RequestError as error:
        raise in_rows(error, lambda index: _place(table, texts[index])) from None
    table.con.register(table.lookup, found)
    try:
        yield
    finally:
        with contextlib.suppress(duckdb.Error):
            table.con.unregister(table.lookup)


def _result(table: _Input, what: str, strict: bool) -> duckdb.DuckDBPyRelation:
    """Returns the joined rows, in a table of their own. If ``strict``, raises TokensNotFound for a token without a value."""
    name = f"qv_{what}_{table.number}"
    try:
        table.con.execute(f"create temp table {name} as {table.join.query()}")
        _require_whole(table, name)
        if strict:
            for column in table.replaced:
                _require_found(table, column)
    except BaseException:
        _drop(table.con, f"temp.{name}")
        raise
    rows: duckdb.DuckDBPyRelation = table.con.table(f"temp.{name}").set_alias(name)
    return rows


def _require_whole(table: _Input, name: str) -> None:
    """Raises QuorumVaultError if the join lost a row or an answer, which a collation or a view of the user could cause."""
    whole = number(table.con, f"select count(*) from temp.{name}") == table.count("count(*)")
    for column in table.replaced:
        filled = quoted(status_name(column) if table.statuses else column)
        wanted = "count(*)" if table.statuses else f"count({text_of(column)})"
        whole = whole and number(table.con, f"select count({filled}) from temp.{name}") == table.count(wanted)
    if not whole:
        raise QuorumVaultError(
            "a row was lost or has no answer in the join of the rows with what was looked up; nothing is returned"
        )


def _require_found(table: _Input, column: str) -> None:
    lacking = f"from {table.table} i join {table.lookup} l on {text_of(column)} = l.text where l.status <> 'ok'"
    count = number(table.con, f"select count(*) {lacking}")
    if count:
        rows = table.con.execute(f"select i.{table.row} {lacking} order by 1 limit {ROWS_SHOWN}").fetchall()
        asked_for = table.count(f"count({text_of(column)})")
        raise TokensNotFound(tuple(row for (row,) in rows), asked_for, count=count, column=column)


def _place(table: _Input, text: Any) -> tuple[int, str] | None:
    """Returns the first row of the source with this text, and its column."""
    refused = f"qv_refused_{table.number}"
    table.con.register(refused, pa.table({"text": pa.array([text.as_py()], pa.large_utf8())}))
    try:
        for column in table.replaced:
            query = f"select min(i.{table.row}) from {table.table} i join {refused} r on {text_of(column)} = r.text"
            ((row,),) = table.con.execute(query).fetchall()
            if row is not None:
                return row, column
        return None
    finally:
        table.con.unregister(refused)


def _scalar(vault: Client, operation: TableOperation) -> Callable[[Any], Any]:
    """Returns a SQL function over Arrow. DuckDB calls it in several threads, and passes on only the text of an error."""

    def function(texts: Any) -> Any:
        arrays = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        try:
            batches = list(look_up(vault, operation, arrays))
            if any("not_text" in batch.column("status").unique().to_pylist() for batch in batches):
                raise errors.NotText("a value is a number or a boolean, which no column of text can have: use Client.detokenize")
        except QuorumVaultError as error:
            vault.last_error = error
            raise _InSql(f"{getattr(error, 'code', type(error).__name__)}: {error}") from error
        results = [batch.column("result").cast(pa.utf8()) for batch in batches]
        return pa.concat_arrays(results) if results else pa.array([], pa.utf8())

    function.__name__ = operation
    return function


class _InSql(Exception):
    """The exception that a SQL function raises: DuckDB shows its name and its text."""


class ConnectionOf:
    """The connection of a relation. The relation does not expose it, so statements run through the relation."""

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self._relation = relation

    def sql(self, query: str, /) -> Any:
        return self._relation.query(f"qv_way_{next(_numbers)}", query)

    execute = sql

    def table(self, name: str, /) -> Any:
        return self.sql(f"from {name}")

    def register(self, name: str, rows: Any, /) -> None:
        self._relation.query(f"qv_way_{next(_numbers)}", f"create temp table {name} as from rows")  # DuckDB finds ``rows`` here

    def unregister(self, name: str, /) -> None:
        self.sql(f"drop table {name}")


def _drop(con: Connection, table: str) -> None:
    """Drops a table. Ignores errors, whatever the connection's state: an error already under way matters more."""
    with contextlib.suppress(duckdb.Error):
        con.execute(f"drop table if exists {table}")
