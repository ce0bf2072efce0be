"""A table, whatever its format: rows, and in them the cells of the columns that were asked for.

A cell's value is a string, or, in formats that have other types, the JSON text of one (``msgspec.Raw``). A null has no cell:
there is nothing in it to replace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec


class Cell(Protocol):
    """One value, at ``column`` of the table's ``columns``."""

    @property
    def column(self) -> int: ...

    @property
    def value(self) -> str | msgspec.Raw: ...

    def replace(self, value: str | msgspec.Raw | None) -> None:
        """What ``render`` of its row writes here from now on: a string, the JSON text of any value, or a null."""
        ...


class Row(Protocol):
    """``line`` is where it begins in the file, counted from 1; ``size`` its length there, in bytes or characters."""

    @property
    def line(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def is_record(self) -> bool:
        """False for an empty line."""
        ...

    def cells(self) -> Sequence[Cell]:
        """Those of the selected columns, nulls left out."""
        ...

    def render(self) -> bytes: ...


class Table(Protocol):
    @property
    def columns(self) -> tuple[str, ...]:
        """The selected ones, as they are named to people."""
        ...

    def select_named(self, names: Sequence[str]) -> None:
        """Raises ColumnError if the table is known not to have one of them."""
        ...

    def select_configured(self, paths: Sequence[str]) -> None:
        """Those that configured fields (JSONPath) lead to. Raises ColumnError if it is known that none does."""
        ...

    def header(self) -> bytes:
        """What stands before the rows."""
        ...

    def rows(self) -> Iterator[Row]:
        """Once. Raises InputError at a line that cannot be read."""
        ...

    def check_seen(self) -> None:
        """After the last row. Raises ColumnError if a column that was named was nowhere, or no configured one anywhere."""
        ...


class ColumnError(Exception):
    """The columns that were asked for are not those of the file: a mistake in the command."""
