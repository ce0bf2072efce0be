"""Prints for commands: one JSON object for machines, a table on a terminal, tab-separated lines in a pipe.

Some of the text comes from nodes and from files that others wrote. A terminal obeys control characters in it: they could change
its title, or fake lines of a node. So all commands print through this module, which shows control characters escaped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.table import Table


def visible(text: str) -> str:
    """Returns ``text`` on one line, with unprintable characters escaped as in Python: \\x1b for an escape character."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def say(text: str, *, err: bool = False) -> None:
    """Prints ``text``, which may have a command's own newlines and tabs. For text from others in it, see ``visible``."""
    click.echo(text if text.isprintable() else "".join(c if c in "\n\t" else _shown(c) for c in text), err=err)


def print_json(answer: object, *, err: bool = False) -> None:
    """Prints ``answer`` as JSON: anything that msgspec encodes, and paths, which need not be UTF-8."""
    try:
        text = msgspec.json.encode(answer, enc_hook=os.fspath).decode()
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(answer, enc_hook=os.fspath), separators=(",", ":"))
    click.echo(visible_json(text), err=err)


def print_answer(answer: object, words: str, *, as_json: bool, err: bool = False) -> None:
    """Prints a command's result: ``answer`` as one JSON object for machines, or ``words`` for people."""
    if as_json:
        print_json(answer)
    else:
        say(words, err=err)


def visible_json(text: str) -> str:
    """Returns equivalent JSON with all unprintable characters escaped."""
    return text if text.isprintable() else "".join(map(_in_json, text))


def _in_json(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def print_row(cells: Iterable[str]) -> None:
    """Prints a line of cells separated by tabs."""
    click.echo("\t".join(map(visible, cells)))


def steps_on_terminal() -> Callable[[str], None]:
    """Returns a function that prints a line for each step on a terminal: a store with many records takes minutes."""
    on_terminal = sys.stderr.isatty()
    return lambda words: say(words, err=True) if on_terminal else None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print_row(row)
        return
    from rich.console import Console

    Console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Builds a table for a terminal. A cell that does not fit is wrapped, not cut."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    return made
