"""A CSV file in memory, read with Python's own csv module, to compare the input of a round trip with its output."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Header and rows, all text. The reader cannot tell null (an empty cell) from the empty string: both are ``""`` here."""

    header: list[str]
    rows: list[list[str]]

    @classmethod
    def parse(cls, content: bytes) -> Table:
        """Parses CSV. Raises ``ValueError`` if it is not UTF-8 or not CSV, has no header, or is not rectangular."""
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        try:
            header = next(reader, [])
            rows = [row for row in reader if row]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        if not header:
            raise ValueError("it has no header line")
        uneven = next((number for number, row in enumerate(rows, start=1) if len(row) != len(header)), None)
        if uneven is not None:
            raise ValueError(f"record {uneven} has {len(rows[uneven - 1])} cells, the header {len(header)}")
        return cls(header, rows)

    def cells(self, columns: Sequence[str]) -> Iterator[str]:
        """Returns the cells of these columns, row by row."""
        places = [self.header.index(column) for column in columns]
        return itertools.chain.from_iterable((row[place] for place in places) for row in self.rows)

    def without(self, columns: Sequence[str]) -> list[list[str]]:
        """Returns all other cells, including the header's."""
        places = [place for place, name in enumerate(self.header) if name not in columns]
        return [[line[place] for place in places] for line in (self.header, *self.rows)]
