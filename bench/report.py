"""The form of every benchmark's report: a Report has the figures, and its Account sums them up in tables and sentences."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Protocol, TextIO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.processes import machine

#: A cell of a table: a format string, to which the item is argument 0, or a function of the item.
Column = str | Callable[[Any], str]


#: The width of lines in documents.
_PROSE = TextWrapper(100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


class MarksMissing(Exception):
    """The document has no marks for the figures."""


class Tell(Protocol):
    """Called with the next step of a run, and the share of the run that is done."""

    def __call__(self, doing: str, done: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text. The first column is left-aligned, the others are right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @classmethod
    def of(cls, title: str, items: Iterable[object], columns: Mapping[str, Column]) -> Table:
        """Makes a table with one row for each item."""
        cells = columns.values()
        rows = [tuple(cell.format(item) if isinstance(cell, str) else cell(item) for cell in cells) for item in items]
        return cls(title, tuple(columns), rows)


@dataclass(frozen=True, slots=True)
class Check:
    """One figure and its target. ``judged`` is False if the figure means nothing: too few data, or a busy machine."""

    what: str
    figure: str
    target: str
    held: bool
    judged: bool = True

    @classmethod
    def of(cls, what: str, figure: float, sign: str, bound: float, form: str, unit: str = "", *, judged: bool = True) -> Check:
        """Makes a check of a figure, in this format, that must be ``≤``, ``<`` or ``≥`` its bound."""
        held = {"≤": operator.le, "<": operator.lt, "≥": operator.ge}[sign](figure, bound)
        return cls(what, f"{figure:{form}}{unit}", f"{sign} {bound:,.10g}{unit}", held, judged)

    @property
    def verdict(self) -> str:
        return "not judged" if not self.judged else "met" if self.held else "MISSED"


@dataclass(frozen=True, slots=True)
class Account:
    """The results that a report shows. ``asserted``: a missed target makes the exit code 1."""

    tables: Sequence[Table]
    checks: Sequence[Check]
    sentences: Sequence[str]
    asserted: bool = True

    @property
    def holds(self) -> bool:
        """Returns False if a judged target was missed."""
        return all(check.held for check in self.checks if check.judged)

    @property
    def all_tables(self) -> list[Table]:
        columns = {"what": "{0.what}", "figure": "{0.figure}", "target": "{0.target}", "": "{0.verdict}"}
        return [Table.of("Targets", self.checks, columns), *self.tables]


class Report(msgspec.Struct, frozen=True):
    """The figures of one run, as written to its JSON file. ``made`` is a date."""

    made: str
    machine: str
    plan: str

    def account(self) -> Account:
        """Returns the account. Each benchmark adds its own tables and checks."""
        return Account([], [], [self.occasion])

    def joined(self, earlier: bytes) -> Report:
        """Returns this report with the figures that only an earlier report (JSON) has. Usually there are none."""
        return self

    @property
    def occasion(self) -> str:
        return f"Measured on {self.made} on {self.machine}. Plan {self.plan}"

    def write_json(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


def today() -> tuple[str, str]:
    """Returns the first two fields of a report made now."""
    return f"{datetime.now(UTC):%Y-%m-%d}", machine()


def percentile(numbers: Sequence[float], percent: int) -> float:
    """Returns the percentile by nearest rank: the smallest number that ``percent`` % of them do not exceed."""
    return sorted(numbers)[math.ceil(len(numbers) * percent / 100) - 1]


def show(account: Account, out: TextIO) -> None:
    """Writes tables with lines to a terminal, and aligned text to anything else; then the sentences."""
    if out.isatty():
        console = Console(file=out)
        for table in account.all_tables:
            console.print(_drawn(table))
        for sentence in account.sentences:
            console.print(f"• {sentence}", highlight=False, markup=False)
    else:
        out.write("\n".join([*map(_plain, account.all_tables), *account.sentences, ""]))


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for number, column in enumerate(table.columns):
        header = "\n".join(column.rsplit(" ", 1))
        drawn.add_column(header, justify="right" if number else "left", no_wrap=number == 0, overflow="fold")
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        drawn.add_row(*row, end_section=following is not None and following[0] != row[0])
    return drawn


def _plain(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (text.rjust(width) for text, width in zip(cells, widths, strict=True))
        return "  ".join([cells[0].ljust(len(first)), *others])

    return "\n".join([table.title, line(table.columns), *map(line, table.rows), ""])


def markdown(account: Account, picture: str | None = None) -> str:
    """Returns Markdown: the sentences as a list, the picture at this path, if any, and the tables."""
    image = [] if picture is None else [f"![The figures, drawn]({picture})"]
    sentences = "\n".join(_PROSE.fill(f"- {sentence}") for sentence in account.sentences)
    return "\n\n".join([sentences, *image, *map(_as_markdown, account.all_tables)])


def _as_markdown(table: Table) -> str:
    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    rows = [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n".join([f"### {table.title}", f"| {' | '.join(table.columns)} |", rule, *rows])


def replace_section(text: str, writer: str, section: str) -> str:
    """Returns the text with the section in place of the text between its writer's two marks. Raises MarksMissing."""
    marks = f"<!-- {writer} writes from here -->", f"<!-- {writer} writes up to here -->"
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise MarksMissing(f"expected the lines {marks[0]!r} and {marks[1]!r}, in this order")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"
