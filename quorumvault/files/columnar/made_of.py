"""Finds the columns of a DuckDB table or view that derive from other columns: generated columns, and columns of views.

DuckDB parses the SQL. This module follows column names through all views that a view reads, but ignores the tables that columns
are in: two columns with the same name count as one. Where the SQL does not show which column derives from which, any column may
derive from any other.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import duckdb

_IDENTIFIER: Final = r'(?:"(?:[^"]|"")+"|[^\s".()]+)'
#: A view's SQL as in duckdb_views(): CREATE VIEW NAME [(COLUMN, ...)] AS QUERY;
_VIEW: Final = re.compile(rf"CREATE VIEW (?:{_IDENTIFIER}\.)*{_IDENTIFIER} (\(.*?\) )?AS (.*?);?\s*", re.DOTALL)
#: Sources of rows that derive no column from another: tables, views, files and queries.
_RELATIONS: Final = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY")
#: Expressions that mean columns without naming them.
_NAMELESS: Final = ("STAR", "POSITIONAL_REFERENCE")


class _UntoldError(Exception):
    """The SQL does not show which column derives from which."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A column of a query. ``of``: the names in its expression, in lower case. ``may_be_any``: it may derive from any column.

    ``name``: None if the query gives it no name. ``copies``: the column that it is a plain copy of, if any.
    """

    name: str | None
    of: frozenset[str]
    copies: str | None
    may_be_any: bool


@dataclass(frozen=True, slots=True)
class Catalog:
    """The views, macros and generated columns of a DuckDB file. Case is ignored, and views are found by name without a schema."""

    con: duckdb.DuckDBPyConnection
    database: str

    def made_of(self, wanted: Iterable[str], place: tuple[str, str], names: Sequence[str], *, is_view: bool) -> list[str] | None:
        """Returns the columns in ``names``, of a table or view, that derive from the ``wanted`` ones, these included.

        ``place``: the table's or view's schema and name. Returns None if the SQL of the view does not show it.
        """
        try:
            items = list(self._generated(None if is_view else place))
            if is_view:
                items += self._of_view(place[1].casefold())
        except _UntoldError:
            return None
        found = _spread({name.casefold() for name in wanted}, items)
        return None if None in found else [name for name in names if name.casefold() in found]

    def _generated(self, place: tuple[str, str] | None) -> Iterator[_Item]:
        """Yields the generated columns of a table, or of all tables."""
        query = "select schema_name, table_name, column_name, generation_expression from duckdb_columns()"
        for schema, table, name, expression in self._rows(f"{query} where is_generated and database_name = ?"):
            if place is None or (schema.casefold(), table.casefold()) == tuple(part.casefold() for part in place):
                (item,) = self._parsed(f"select {expression}")["select_list"]
                yield _item(name.casefold(), item, frozenset(), frozenset())

    def _of_view(self, view: str) -> Iterator[_Item]:
        """Yields the columns in the queries of a view, and of all views that it reads. Raises _UntoldError."""
        views: dict[str, list[str]] = {}
        for name, sql in self._rows("select view_name, sql from duckdb_views() where database_name = ?"):
            views.setdefault(name.casefold(), []).append(sql)
        query = "select function_name from duckdb_functions() where database_name = ? and function_type like '%macro'"
        macros = frozenset(name.casefold() for (name,) in self._rows(query))
        waiting, seen = [view], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for sql in views.get(name, ()):
                parts = _VIEW.fullmatch(sql)
                if parts is None or parts[1]:
                    raise _UntoldError
                query_tree = self._parsed(parts[2])
                relations = frozenset(_relations(query_tree))
                for node in _nodes(query_tree):
                    yield from _items(node, relations, macros)
                waiting += relations

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.con.execute(query, [self.database]).fetchall()

    def _parsed(self, query: str) -> Any:
        ((text,),) = self.con.execute("select json_serialize_sql(?)", [query]).fetchall()
        tree = json.loads(text)
        if tree["error"]:
            raise _UntoldError
        (statement,) = tree["statements"]
        return statement["node"]


def _spread(wanted: set[str], items: Sequence[_Item]) -> set[str | None]:
    """Returns the names of all columns that derive from ``wanted``, directly or not, and of the columns that these copy."""
    found: set[str | None] = {*wanted}
    known = -1
    while known < len(found):
        known = len(found)
        for item in items:
            if item.may_be_any or item.of & found:
                found.add(item.name)
            elif item.copies is not None and item.name in found:
                found.add(item.copies)
    return found


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yields every object in a parse tree."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _relations(tree: Any) -> Iterator[str]:
    """Yields the names of the relations that a query reads, and their aliases."""
    for node in _nodes(tree):
        if _is_relation(node):
            yield from (node[key].casefold() for key in ("table_name", "alias") if node.get(key))
        if "cte_map" in node:
            yield from (each["key"].casefold() for each in node["cte_map"]["map"])


def _is_relation(node: dict[str, Any]) -> bool:
    return "sample" in node and "alias" in node


def _items(node: dict[str, Any], relations: frozenset[str], macros: frozenset[str]) -> Iterator[_Item]:
    """Yields the columns of a query node, and nothing for any other node. Raises _UntoldError."""
    if node.get("column_name_alias") or node.get("aliases"):  # names by position
        raise _UntoldError
    if _is_relation(node):
        read = node.get("function", {}).get("function_name", "")
        if node["type"] not in _RELATIONS and not (read.startswith("read_") and read not in macros):
            raise _UntoldError
    if "modifiers" not in node:
        return
    if node["type"] == "SET_OPERATION_NODE":
        lists = {tuple(map(_name, child.get("select_list", [{}]))) for child in node["children"]}
        if node["setop_type"] != "UNION_BY_NAME" and (len(lists) > 1 or None in chain.from_iterable(lists)):
            raise _UntoldError
    elif node["type"] != "SELECT_NODE":
        raise _UntoldError
    for item in node.get("select_list", ()):
        if item["class"] != "STAR":
            yield _item(_name(item), item, relations, macros)
            continue
        relation = item["relation_name"].casefold()
        if item["columns"] or item["expr"] or item["rename_list"] or (relation and relation not in relations):
            raise _UntoldError
        for each in item["replace_list"]:
            yield _item(each["key"].casefold(), each["value"], relations, macros)


def _name(item: dict[str, Any]) -> str | None:
    """Returns the name of a column of a query; None if DuckDB derives the name from the expression."""
    name: str = item.get("alias") or (item["column_names"][-1] if item.get("class") == "COLUMN_REF" else "")
    return name.casefold() or None


def _item(name: str | None, expression: dict[str, Any], relations: frozenset[str], macros: frozenset[str]) -> _Item:
    nodes = list(_nodes(expression))
    columns = [[part.casefold() for part in node["column_names"]] for node in nodes if node.get("class") == "COLUMN_REF"]
    may_be_any = any(
        node.get("class") in _NAMELESS or node.get("function_name", "").casefold() in macros for node in nodes
    ) or any(len(parts) == 1 and parts[0] in relations for parts in columns)  # a whole row
    copies = columns[0][-1] if expression["class"] == "COLUMN_REF" else None
    return _Item(name, frozenset(chain.from_iterable(columns)), copies, may_be_any)
