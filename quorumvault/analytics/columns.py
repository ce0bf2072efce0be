"""Which types of columns are accepted, how DuckDB spells column names, and where in a column an error is.

Queries, frames and files follow the same rules.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from quorumvault.errors import ColumnError, ItemError, RequestError

#: Operations on tables. Only files can be retokenized.
TableOperation: TypeAlias = Literal["tokenize", "detokenize"]

#: The most rows that an error names.
ROWS_SHOWN = 5

#: "null" is the type of a column of nulls, which has no text to look up.
_TEXT = ("varchar", "enum", "null")
_INEXACT = ("float", "double")
#: Types whose text in DuckDB does not depend on settings.
CASTABLE = (
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", "uuid"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
    *("date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"),
)


def require_text(name: str, kind: Any, *, may_cast: bool, cast: bool) -> None:
    """Raises ColumnError unless a column of this DuckDB type is text, or ``may_cast`` and ``cast`` make it text."""
    if kind.id in _TEXT:
        return
    if not may_cast:
        raise ColumnError(f"column {name} is {kind}: tokens are VARCHAR")
    if kind.id in _INEXACT:
        raise ColumnError(f"column {name} is {kind}, whose text is not exact: format it in the query, then tokenize that text")
    if kind.id not in CASTABLE:
        raise ColumnError(f"column {name} is {kind}: only text can be tokenized, and what a query makes of it")
    if not cast:
        raise ColumnError(
            f"column {name} is {kind}, and only text is tokenized: read it as VARCHAR (of CSV files: all_varchar), "
            f'or add cast="{name}" (--cast {name}) to take the text that DuckDB writes for it'
        )


def listed(names: Any) -> list[Any]:
    """Returns one name or several as a list. A tuple means several; ``[("a", "b")]`` is one name in a hierarchy of columns."""
    return [names] if isinstance(names, str) or not hasattr(names, "__iter__") else list(names)


def in_rows(error: RequestError, place: Callable[[int], tuple[int, str] | None]) -> RequestError:
    """Turns an error about distinct texts into one about the first rows and columns that have them, by ``place``."""
    placed = []
    for item in error.errors[:ROWS_SHOWN]:
        where = place(item.index)
        if where is not None:
            placed.append(ItemError(where[0], item.code, item.detail, where[1]))
    if not placed:
        return error
    first, more = placed[0], len(error.errors) - 1
    words = f"row {first.index}, column {first.path}: {first.detail}" + (f" (and {more} more values)" if more else "")
    renamed = type(error)(words, errors=tuple(placed))
    renamed.asked, renamed.request_id = error.asked, error.request_id
    return renamed


def status_name(name: Any) -> Any:
    """Returns the name of a column's status column; in a hierarchy of columns, it differs in the lowest level."""
    return (*name[:-1], status_name(name[-1])) if isinstance(name, tuple) else f"{name}_status"


def require_status_free(whose: str, columns: Iterable[Any], names: Iterable[Any]) -> None:
    """Raises ColumnError if one of ``names`` is the name of a status column of ``columns``, ignoring case."""
    taken = {str(name).casefold() for name in names}
    for name in columns:
        where = status_name(name)
        if str(where).casefold() in taken:
            raise ColumnError(f"{whose} has a column {where}, which is where the status of {name} goes: rename it")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unlike(name: str, names: Sequence[str]) -> str:
    """Returns a quoted name that differs from all ``names``, ignoring case."""
    taken = {each.casefold() for each in names}
    while name in taken:
        name += "_"
    return quoted(name)
