"""A report as tables: on a terminal, in a pipe, and in Markdown, between two marks of a file that says more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.findings import findings
from bench.report import Cell, FloorCell, Report

BEGIN = "<!-- bin/bench writes from here -->"
END = "<!-- bin/bench writes up to here -->"


class MarksMissing(Exception):
    """The file has no place for the figures."""


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells: the first column is set left, the others right."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(report: Report) -> list[Table]:
    return [
        Table(
            "The vault: three nodes, and the client beside them (CPU: seconds a million values)",
            (
                *("operation", "batch", "at once", "values/s", "median ms", "p99 ms", "CPU nodes", "CPU client", "CPU floor"),
                *("nodes ÷ floor", "range", "own MiB", "mapped MiB", "B/record"),
            ),
            [_vault_row(cell) for cell in report.cells],
        ),
        Table(
            "The floor: only what nobody can leave out, in one process (CPU: seconds a million values)",
            ("operation", "batch", "values/s", "CPU", "CPU of compactions"),
            [_floor_row(floor) for floor in report.floor],
        ),
    ]


def _vault_row(cell: Cell) -> tuple[str, ...]:
    return (
        cell.operation.value,
        f"{cell.batch:,}",
        str(cell.at_once),
        f"{cell.values_per_second:,.0f}",
        _figure(cell.median_ms),
        _figure(cell.p99_ms),
        _figure(cell.nodes_cpu),
        _figure(cell.client_cpu),
        _figure(cell.floor_cpu),
        f"{cell.ratio:.2f}",
        f"{cell.lowest_ratio:.2f}–{cell.highest_ratio:.2f}",
        f"{cell.own_mib:,.0f}",
        f"{cell.mapped_mib:,.0f}",
        f"{cell.disk_bytes_per_record:,.0f}",
    )


def _floor_row(floor: FloorCell) -> tuple[str, ...]:
    return (
        floor.operation.value,
        f"{floor.batch:,}",
        f"{floor.values_per_second:,.0f}",
        _figure(floor.cpu),
        _figure(floor.compaction_cpu),
    )


def _figure(figure: float) -> str:
    """With three digits, or all that are before the point."""
    decimals = 2 if figure < 10 else 1 if figure < 100 else 0
    return f"{figure:,.{decimals}f}"


def show(report: Report, out: TextIO) -> None:
    """Drawn tables on a terminal, aligned text elsewhere; then the findings."""
    show_all(tables(report), findings(report), out)


def show_all(drawn: Sequence[Table], sentences: Sequence[str], out: TextIO) -> None:
    """The same for tables and sentences of whatever report."""
    if out.isatty():
        console = Console(file=out)
        for table in drawn:
            console.print(_drawn(table))
        for sentence in sentences:
            console.print(f"• {sentence}", highlight=False, markup=False)
    else:
        out.write("\n".join([*map(_plain, drawn), *sentences, ""]))


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


def markdown(report: Report, picture: str) -> str:
    """The findings as a list, the picture by its file name, and the tables."""
    image = f"![Throughput, and CPU as a multiple of the floor's]({picture})"
    return "\n\n".join([as_list(findings(report)), image, *map(as_markdown, tables(report))])


def as_list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def as_markdown(table: Table) -> str:
    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    rows = [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n".join([f"### {table.title}", f"| {' | '.join(table.columns)} |", rule, *rows])


def replace_section(text: str, section: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The text with the section in place of what stood between the marks. Raises MarksMissing."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise MarksMissing(f"expected the lines {marks[0]!r} and {marks[1]!r}, in this order")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"
