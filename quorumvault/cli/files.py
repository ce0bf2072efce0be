"""``quorumvault tokenize``, ``detokenize`` and ``retokenize``: files and standard input, JSON Lines and CSV."""

from __future__ import annotations

import contextlib
import csv
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import click
import msgspec

from quorumvault.cli.conversion import Detokenized, Detokenizer, Progress, Retokenizer, Tokenized, Tokenizer, convert_table
from quorumvault.cli.destination import STANDARD, destination
from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import Connection, connection_options, json_option
from quorumvault.client import Client
from quorumvault.tabular.csv import CsvTable
from quorumvault.tabular.jsonlines import JsonLinesTable
from quorumvault.tabular.lines import Lines
from quorumvault.tabular.table import ColumnError, Table

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Job(NamedTuple):
    """What these commands are told about files."""

    source: Path
    output: Path
    force: bool
    columns: tuple[str, ...]
    format: str


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the arguments that make a Job; the command gets it as ``job``."""

    @functools.wraps(command)
    def with_job(
        *args: Any, source: Path, output: Path, force: bool, column: tuple[str, ...], table_format: str | None, **kwargs: Any
    ) -> Any:
        if output != STANDARD and source != STANDARD and output.exists() and output.samefile(source):
            raise click.UsageError("the output is the input: name another file")
        job = Job(source, output, force, _names(column), table_format or _format_of(source))
        return command(*args, job=job, **kwargs)

    decorated: Callable[..., Any] = with_job
    for option in reversed(_FILE_OPTIONS):
        decorated = option(decorated)
    return decorated


_FILE_OPTIONS = (
    click.argument(
        "source", metavar="[FILE]", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
    ),
    click.option(
        "-o",
        "--output",
        default="-",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        help="A file that appears when all is done. Default: standard output.",
    ),
    click.option("--force", is_flag=True, help="Replace the output file if there is one."),
    click.option(
        "--column",
        multiple=True,
        metavar="A,B",
        help="Columns, instead of the configured fields. In JSON Lines: members, or paths such as $.patient.name. Repeatable.",
    ),
    click.option(
        "--format",
        "table_format",
        type=click.Choice(["csv", "jsonl"]),
        help="Default: by the file's extension: .csv, .jsonl, .ndjson.",
    ),
)


_missing_option = click.option(
    "--missing",
    type=click.Choice(["keep", "null", "error"]),
    default="keep",
    show_default=True,
    help="What to do with a cell whose token is not found.",
)


def _names(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Names with commas between them; one that has a comma in it is quoted as in CSV."""
    names = tuple(name for row in csv.reader(texts) for name in row)
    if len(names) < len(texts):
        raise click.UsageError("--column: expected names of columns")
    return names


def _format_of(source: Path) -> str:
    found = _FORMATS.get(source.suffix.lower())
    if found is None:
        raise click.UsageError("say which format it is: --format csv or --format jsonl")
    return found


@click.command(
    short_help="Replace values in a file by tokens.",
    epilog="\b\nExample:\n  quorumvault tokenize patients.csv --column SSN,PASSPORT -o patients.tokens.csv",
)
@_file_options
@click.option(
    "--if-token",
    type=click.Choice(["fail", "keep"]),
    default="fail",
    show_default=True,
    help="What to do with a cell that has a token in it already.",
)
@connection_options
@json_option
def tokenize(job: Job, if_token: Literal["fail", "keep"], connection: Connection, as_json: bool) -> None:
    """Replace the values in columns of FILE, or of standard input, by tokens.

    Everything else stays as it is, nulls too: in CSV an empty cell without quotes. Files are text: a number in CSV is a string.
    JSON Lines keep the spelling of every other member, and lose the white space between members.
    At the end it prints the rows, the values in each column, and the epoch of the tokens.
    """
    with _opened(job, connection) as work:
        tokenizer = Tokenizer(work.table, work.source, work.vault, keep_tokens=if_token == "keep")  # noqa: S105
        done = convert_table(work.table, tokenizer, work.sink, work.progress)
    _report(job, as_json, done, _tokenized_words(done))
    if len(done.epochs) > 1:
        click.echo("The epoch was rotated meanwhile: tokenize once more to have all tokens of one epoch.", err=True)


@click.command(
    short_help="Replace tokens in a file by their values.",
    epilog="\b\nExample:\n  quorumvault detokenize patients.tokens.csv --column SSN,PASSPORT -o patients.csv",
)
@_file_options
@_missing_option
@connection_options
@json_option
def detokenize(job: Job, missing: Literal["keep", "null", "error"], connection: Connection, as_json: bool) -> int:
    """Replace the tokens in columns of FILE, or of standard input, by their values.

    A cell that has no token in it stays as it is, and is not sent. Exit 4 if the value of some token could not be had.
    """
    with _opened(job, connection) as work:
        detokenizer = Detokenizer(work.table, work.source, work.vault, missing=missing)
        done = convert_table(work.table, detokenizer, work.sink, work.progress)
    _report(job, as_json, done, _replaced_words(done, "values that came back"))
    return PARTIAL if done.partial else 0


@click.command(
    short_help="Move tokens in a file to the active epoch.",
    epilog="\b\nExample:\n  quorumvault retokenize patients.tokens.csv --column SSN,PASSPORT -o patients.new.csv",
)
@_file_options
@_missing_option
@connection_options
@json_option
def retokenize(job: Job, missing: Literal["keep", "null", "error"], connection: Connection, as_json: bool) -> int:
    """Replace the tokens in columns of FILE, or of standard input, by those of the active epoch. No value is shown.

    Needs a key that may tokenize. A token that is of that epoch already stays as it is, and so does a cell that has no token in
    it. Exit 4 if some token could not be moved.
    """
    with _opened(job, connection) as work:
        retokenizer = Retokenizer(work.table, work.source, work.vault, missing=missing)
        done = convert_table(work.table, retokenizer, work.sink, work.progress)
    epochs = ", ".join(map(str, done.epochs)) or "unknown: no token"
    _report(job, as_json, done, f"{_replaced_words(done, 'tokens that were moved')}; epoch {epochs}")
    if len(done.epochs) > 1:
        click.echo("The epoch was rotated meanwhile: retokenize once more to have all tokens of one epoch.", err=True)
    return PARTIAL if done.partial else 0


class Work(NamedTuple):
    """A table with its columns selected, what to call its file, and what it goes through to where."""

    table: Table
    source: str
    vault: Client
    sink: BinaryIO
    progress: Progress


@contextlib.contextmanager
def _opened(job: Job, connection: Connection) -> Iterator[Work]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_column_errors())
        sink = stack.enter_context(destination(job.output, force=job.force))
        standard = job.source == STANDARD
        stream: BinaryIO = sys.stdin.buffer if standard else stack.enter_context(job.source.open("rb"))
        lines = Lines(stream, "standard input" if standard else str(job.source))
        table: Table = CsvTable(lines) if job.format == "csv" else JsonLinesTable(lines)
        vault = stack.enter_context(connection.open())
        if job.columns:
            table.select_named(job.columns)
        else:
            table.select_configured(vault.fields())
        yield Work(table, lines.source, vault, sink, stack.enter_context(_progress(job, stream)))


@contextlib.contextmanager
def _column_errors() -> Iterator[None]:
    """Columns that the file does not have are a mistake in the command."""
    try:
        yield
    except ColumnError as error:
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def _progress(job: Job, stream: BinaryIO) -> Iterator[Progress]:
    """Shown on standard error, and only if that is a terminal to which no rows are written."""
    if not sys.stderr.isatty() or (job.output == STANDARD and sys.stdout.isatty()):
        yield lambda rows, size: None
        return
    from quorumvault.cli.progress import progress_bar

    with progress_bar(stream) as progress:
        yield progress


def _report(job: Job, as_json: bool, done: Tokenized | Detokenized, words: str) -> None:
    """To standard error, so that it never is among the rows; as JSON to standard output if the rows went elsewhere."""
    text = msgspec.json.encode(done).decode() if as_json else words
    click.echo(text, err=not as_json or job.output == STANDARD)


def _tokenized_words(done: Tokenized) -> str:
    words = f"{_rows_words(done, 'values that became tokens')}; epoch {', '.join(map(str, done.epochs)) or 'unknown: no value'}"
    return words + (f"; {done.kept_tokens:,} cells had tokens already" if done.kept_tokens else "")


def _replaced_words(done: Detokenized, what: str) -> str:
    counts = (
        (done.not_found, "tokens not found"),
        (done.unavailable, "tokens could not be told, ask again"),
        (done.collision, "tokens in which two values met"),
        (done.no_token, "cells without a token"),
    )
    return "; ".join([_rows_words(done, what), *(f"{count:,} {what}" for count, what in counts if count)])


def _rows_words(done: Tokenized | Detokenized, what: str) -> str:
    columns = ", ".join(f"{column} {count:,}" for column, count in done.values.items())
    return f"{done.rows:,} rows; {what}: {columns}"
