"""Finds out whether two outputs, or an output and a source, would be the same file or table."""

from collections.abc import Hashable
from typing import Final

from quorumvault.files.sources import InputsError, schema_and_name
from quorumvault.files.urls import Place, Url

#: DuckDB makes no tables in the first two schemas, and uses the other names for its own catalogs.
_RESERVED_SCHEMAS: Final = frozenset(("information_schema", "pg_catalog", "system", "temp"))


def require_own_schema(table: str | None, shown: str) -> None:
    """Raises InputsError for a table in a schema in which DuckDB makes no tables."""
    if table is not None and (schema := schema_and_name(table.casefold())[0]) in _RESERVED_SCHEMAS:
        raise InputsError(f"{shown}: no table can be made in the schema {schema}, which is DuckDB's own: name another one")


def file_key(path: Place) -> Hashable:
    """Returns a key that is equal for two names of one file. For an object or a missing file it is the name."""
    if isinstance(path, Url):
        return path
    try:
        found = path.stat()
    except OSError:
        return path
    return found.st_dev, found.st_ino


def table_key(table: str | None) -> str | None:
    """Returns a key that is equal for two names of one table: DuckDB ignores case, and ``main`` is its default schema."""
    return None if table is None else ".".join(map(repr, schema_and_name(table.casefold())))


def overlap(tables: set[str | None], table: str | None) -> bool:
    """Returns whether another output would overlap the outputs in the same file. None is the whole file."""
    return bool(tables) and (table is None or None in tables or table in tables)
