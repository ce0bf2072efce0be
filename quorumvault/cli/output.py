"""What commands print: one JSON object for machines, a table on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.table import Table


def print_json(answer: object) -> None:
    """``answer``: anything that msgspec encodes; a path in it need not be UTF-8."""
    try:
        text = msgspec.json.encode(answer).decode()
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(answer), separators=(",", ":"))
    click.echo(text)


def steps_on_terminal() -> Callable[[str], None]:
    """On a terminal a line for each step that it is told: a store of many records takes minutes."""
    on_terminal = sys.stderr.isatty()
    return lambda words: click.echo(words, err=True) if on_terminal else None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console

    Console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """For a terminal. A cell that does not fit is folded, not cut."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made
