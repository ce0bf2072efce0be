"""The types of columns before ``--cast`` made them text. A note in the output keeps them, and ``--restore-types`` casts back.

Parquet     an entry of the file's metadata: {"zip": {"duckdb": "BIGINT", "arrow": "int64"}}
DuckDB      a comment on the column: quorumvault.type=BIGINT

A note comes from a file that anybody may have written, so it counts only if it names a type that can be cast.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

from quorumvault.analytics.columns import CASTABLE, quoted
from quorumvault.errors import ColumnError
from quorumvault.files.columnar.answers import registered
from quorumvault.files.job import RunError
from quorumvault.files.sources import Source

#: SQL that finds a table in the catalog by database, schema and name: DuckDB ignores case in the last two.
PLACE: Final = "database_name = ? and lower(schema_name) = lower(?) and lower(table_name) = lower(?)"
_KEY: Final = b"quorumvault.types"
_COMMENT: Final = "quorumvault.type="
_DUCKDB: Final = re.compile(r"([A-Z_]+)(\(\d{1,2}, ?\d{1,2}\))?")
_DECIMAL: Final = re.compile(r"decimal(32|64|128|256)\((\d{1,2}), (\d{1,2})\)")
#: Part of the names of 128-bit integer types, and of types that contain them.
_HUGE: Final = "HUGEINT"


class CastType(msgspec.Struct, frozen=True):
    """DuckDB's name of a type, and for a Parquet file Arrow's, which says more about the type in the file."""

    duckdb: str
    arrow: str | None = None

    def is_known(self) -> bool:
        found = _DUCKDB.fullmatch(self.duckdb)
        return found is not None and found[1].lower() in CASTABLE and (self.arrow is None or _arrow_type(self.arrow) is not None)


Notes = dict[str, CastType]


def in_metadata(metadata: Mapping[bytes, bytes] | None) -> Notes:
    """Returns the notes in a Parquet file's metadata."""
    try:
        notes = msgspec.json.decode((metadata or {}).get(_KEY, b"{}"), type=Notes)
    except (ValueError, RecursionError):
        return {}
    return {name: kind for name, kind in notes.items() if kind.is_known()}


def with_notes(metadata: Mapping[bytes, bytes] | None, notes: Notes) -> dict[bytes, bytes] | None:
    """Returns a Parquet file's metadata with these notes in place of any others."""
    kept = {key: value for key, value in (metadata or {}).items() if key != _KEY}
    return kept | ({_KEY: msgspec.json.encode(notes)} if notes else {}) or None


def kv_metadata(notes: Notes) -> str:
    """Returns the option of DuckDB's COPY that writes the notes; an empty string if there are none."""
    literal = msgspec.json.encode(notes).decode().replace("'", "''")
    return f", kv_metadata {{'{_KEY.decode()}': '{literal}'}}" if notes else ""


def in_comments(con: duckdb.DuckDBPyConnection, place: Sequence[str]) -> Notes:
    """Returns the notes on the columns of a table: ``place`` is its database, schema and name."""
    query = f"select column_name, comment from duckdb_columns() where {PLACE}"
    found = con.execute(query, list(place)).fetchall()
    notes = {name: CastType(said.removeprefix(_COMMENT)) for name, said in found if said and said.startswith(_COMMENT)}
    return {name: kind for name, kind in notes.items() if kind.is_known()}


def comment(con: duckdb.DuckDBPyConnection, table: str, notes: Notes) -> None:
    """Writes the notes as comments on the columns of a table. ``table`` is SQL."""
    for name, kind in notes.items():
        con.execute(f"comment on column {table}.{quoted(name)} is '{_COMMENT}{kind.duckdb}'")


def of_columns(kinds: Mapping[str, Any], schema: Any, cast: Collection[str]) -> Notes:
    """Returns notes for the columns to cast. ``kinds``: DuckDB's types; ``schema``: that of a Parquet file, or None."""
    return {
        name: CastType(str(kinds[name]), None if schema is None else str(schema.field(name).type))
        for name in cast
        if name in kinds and str(kinds[name].id) in CASTABLE
    }


def to_restore(notes: Notes, columns: Sequence[str], source: Source) -> Notes:
    """Returns the notes of the columns that have one. Raises ColumnError if no column has one."""
    found = {name: notes[name] for name in columns if name in notes}
    if not found:
        raise ColumnError(
            f"{source} does not say of {', '.join(columns)} which types they had before --cast: "
            "restore what tokenize has cast, or leave --restore-types out"
        )
    return found


def arrow_type(kind: CastType, name: str, source: Source) -> Any:
    """Returns the type of a restored column in Parquet. Raises ColumnError if there is none."""
    require_in_parquet({name: kind.duckdb}, source)
    if kind.arrow is not None:
        return _arrow_type(kind.arrow)
    with duckdb.connect() as con:
        relation = con.sql(f"select cast(null as {kind.duckdb}) as cell")
        return relation.to_arrow_table().schema.field(0).type if kind.duckdb != "UUID" else pa.uuid()


def require_in_parquet(kinds: Mapping[str, str], source: Source) -> None:
    """Raises ColumnError for a column of integers for which Parquet has no type: DuckDB would write floating-point numbers."""
    for name, kind in kinds.items():
        if _HUGE in kind:
            raise ColumnError(
                f"{source}: column {name} is {kind}, which Parquet has not: write to a DuckDB file, or cast it first"
            )


def _arrow_type(text: str) -> Any:
    if text == str(pa.uuid()):
        return pa.uuid()
    decimal = _DECIMAL.fullmatch(text)
    try:
        if decimal is not None:
            return getattr(pa, f"decimal{decimal[1]}")(int(decimal[2]), int(decimal[3]))
        return pa.type_for_alias(text)
    except (ValueError, pa.ArrowException):
        return None


def cast_back(cell: str, kind: CastType) -> str:
    """Returns SQL that casts a cell back to its former type: null for a text that DuckDB writes for no value of the type.

    DuckDB reads more texts than it writes: 007 as the integer 7, 1.5 as 2, the day of a time as a date.
    """
    value = f"try_cast({cell} as {kind.duckdb})"
    return f"case when cast({value} as varchar) = {cell} then {value} end"


def restored(con: duckdb.DuckDBPyConnection, texts: Any, kind: CastType, to: Any, where: str) -> Any:
    """Returns a column of texts (large_utf8) cast back to its former type. Raises RunError, which begins with ``where``."""
    cast = cast_back("cell", kind)
    with registered(con, "restored", pa.table({"cell": texts})):
        lost = con.sql(f"select count(*) from restored where cell is not null and {cast} is null").fetchall()
        require_all(lost[0][0], kind, where)
        query = f"select {cast if kind.duckdb != 'UUID' else 'cell'} as cell from restored"
        column = con.sql(query).to_arrow_table().column("cell").combine_chunks()
    if to == pa.uuid():
        stored = [None if text is None else bytes.fromhex(text.replace("-", "")) for text in column.to_pylist()]
        return pa.ExtensionArray.from_storage(to, pa.array(stored, pa.binary(16)))
    return column.cast(to)


def require_all(lost: int, kind: CastType, where: str) -> None:
    """Raises RunError if ``lost`` texts of a column are not values of its former type."""
    if lost:
        raise RunError(
            f"{where}: {lost:,} cells have a text that DuckDB writes for no {kind.duckdb}. Tokens that are not found stay as "
            "they are: --missing null makes them null, and without --restore-types the column stays text"
        )
