"""A table, whatever its format: rows, each with the cells of the columns that the caller named.

A cell's value is a string, or, in formats with other types, a JSON text (``msgspec.Raw``). A null has no cell: there is nothing
to replace.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from quorumvault.errors import ColumnError
from quorumvault.formats.jsonpath import FieldPath


class UnwritableValue(ValueError):
    """A value cannot be written in a cell of this table. The message gives the reason and never the value."""


class Cell(Protocol):
    """One value; ``column`` is its position in the table's ``columns``."""

    column: int

    @property
    def value(self) -> str | msgspec.Raw: ...

    def replace(self, value: str | msgspec.Raw | None) -> None:
        """Sets what the row's ``render`` writes for this cell: a string, the JSON text of any value, or (None) a null.

        Raises UnwritableValue.
        """


class Row(Protocol):
    """``line`` is the row's first line in the file, counted from 1; ``size`` its length there, in bytes or characters."""

    line: int
    size: int

    @property
    def is_record(self) -> bool:
        """False for an empty line."""

    def cells(self) -> Sequence[Cell]:
        """Returns the cells of the selected columns, without nulls."""

    def render(self) -> bytes: ...


class RowPlace(NamedTuple):
    """A place between two rows: the records, bytes and lines before it, and the columns that had a value there."""

    row: int = 0
    offset: int = 0
    line: int = 0
    seen: tuple[str, ...] = ()


class Table(Protocol):
    @property
    def columns(self) -> tuple[str, ...]:
        """The selected columns, by their names for people."""

    def select_named(self, names: Sequence[str]) -> None:
        """Selects columns by name. Raises ColumnError if the table is known to lack one."""

    @property
    def left(self) -> tuple[str, ...]:
        """The columns, or members of records so far, that are not selected and that ``keep`` does not name."""

    def leave(self, keep: Sequence[str], *, only_listed: bool) -> None:
        """Sets the columns that may stay as they are, after a selection. With ``only_listed`` any other column is an error.

        Raises ColumnError for such a column, here or in ``rows`` at the first record that has one.
        """

    def positions(self, names: Sequence[str]) -> frozenset[int]:
        """Returns the positions of these names in ``columns``. Raises ColumnError for a name that is not selected."""

    def select_configured(self, paths: Sequence[str]) -> None:
        """Selects the columns that configured fields (JSONPath) lead to. Raises ColumnError if there are known to be none."""

    def header(self) -> bytes:
        """Returns the bytes before the first row."""

    def skip_to(self, place: RowPlace) -> None:
        """Makes ``rows`` begin at a place, and restores the columns seen before it. The stream must be a file."""

    def place(self, row: int) -> RowPlace:
        """Returns the current place of ``rows``, after ``row`` records."""

    def rows(self) -> Iterator[Row]:
        """Yields the rows. May be called once. Raises InputError at a line that cannot be read."""

    def check_seen(self) -> None:
        """Called after the last row. Raises ColumnError if no row had a named column, or no row had any configured column."""


def configured_columns(paths: Sequence[str], names: Sequence[str], source: str) -> list[str]:
    """Returns the columns among ``names`` that configured fields lead to. A field of one name, such as ``$.SSN``, is column SSN.

    Raises ColumnError if there is none.
    """
    steps = [FieldPath.parse(path).steps for path in paths]
    fields = [step[0] for step in steps if len(step) == 1]
    found = [field for field in fields if isinstance(field, str) and field in names]
    if not found:
        words = f"has none of the configured fields ({', '.join(paths)}) as a column; its columns: {listed(names)}"
        raise ColumnError(f"{source} {words}. Name some with --column")
    return found


def require_named(wanted: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raises ColumnError unless every wanted column is among ``names``."""
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise ColumnError(f"{source} has no column {listed(lacking)}; its columns: {listed(names)}")


def cast_positions(names: Sequence[str], columns: Sequence[str]) -> frozenset[int]:
    """Returns the positions of the columns to cast among those to tokenize. Raises ColumnError for one that is not there."""
    strangers = [name for name in names if name not in columns]
    if strangers:
        raise ColumnError(f"--cast names {', '.join(strangers)}, which is not among the columns to tokenize")
    return frozenset(map(columns.index, names))


def remaining(names: Sequence[str], selected: Sequence[str], keep: Sequence[str], *, only_listed: bool, source: str) -> list[str]:
    """Returns the columns that are neither selected nor in ``keep``. Raises ColumnError if ``only_listed`` and there are any."""
    left = [name for name in names if name not in selected and name not in keep]
    if left and only_listed:
        raise unlisted(left, source)
    return left


def unlisted(left: Sequence[str], source: str) -> ColumnError:
    words = f"has columns that --only-listed does not let stay: {listed(left)}; name them with --column or --keep"
    return ColumnError(f"{source} {words}")


def listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
