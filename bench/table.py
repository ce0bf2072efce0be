"""A report as text: on a terminal, in a pipe, and as the section of a Markdown file between two marks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.report import TARGET_RATIO, TARGET_SPEED_UP, Cell, Report, speed_up
from bench.work import Operation

BEGIN = "<!-- bin/bench writes from here -->"
END = "<!-- bin/bench writes up to here -->"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text: the first column to the left, the others to the right. ``parts``: how many rows belong together."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    part: int


def cells_table(report: Report) -> Table:
    columns = (
        "", "batch", "at once", "values/s", "median ms", "p99 ms",
        "CPU nodes", "client", "floor", "nodes ÷ floor", "own MiB", "mapped", "bytes/record",
    )  # fmt: skip
    rows = [_cell_row(cell, report.floor_of(cell).cpu) for cell in report.cells]
    return Table("The vault: three nodes and the client on one machine", columns, rows, part=3)
