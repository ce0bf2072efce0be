"""The options of commands over files, and the Request and Job that they make."""

import csv
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from quorumvault.cli.destination import OutputPath
from quorumvault.cli.options import all_of
from quorumvault.cli.standard_streams import descriptor_of
from quorumvault.files.job import Job, JobOperation
from quorumvault.files.sources import Format
from quorumvault.files.urls import Place
from quorumvault.formats.dialect import ENCODINGS, Dialect, Encoding

column_option = click.option(
    "--column",
    multiple=True,
    metavar="A,B",
    help="Columns, instead of the configured fields. In JSON Lines: members, or paths such as $.patient.name. Repeatable.",
)
format_option = click.option(
    "--format",
    "table_format",
    type=click.Choice(["csv", "jsonl", "parquet", "duckdb"]),
    help="Format of the files. Default: by extension: .csv, .jsonl, .ndjson, .parquet, .duckdb.",
)
force_option = click.option(
    "--force", is_flag=True, help="Replace existing outputs, and discard what an unfinished run left behind."
)
resume_option = click.option(
    "--resume", is_flag=True, help="Continue an interrupted run, if there is one, without repeating its finished parts."
)
spill_option = click.option(
    "--spill",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for distinct values, which the run keeps on disk until its end. Default: beside the output.",
)
work_option = click.option(
    "--work",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for the files of an unfinished run with output in an object store. Default: the current directory.",
)
missing_option = click.option(
    "--missing",
    type=click.Choice(["keep", "null", "error"]),
    default="keep",
    show_default=True,
    help="What to do with a cell whose token is not found. error also fails on text that begins like a token but is not one.",
)
status_option = click.option(
    "--status", is_flag=True, help="Add a column NAME_status for each column: ok, null, not_found, not_token. Parquet and DuckDB."
)
cast_option = click.option(
    "--cast",
    multiple=True,
    metavar="A,B",
    help="Non-text columns to tokenize, as the text that DuckDB or JSON writes for their values. Repeatable.",
)
keep_options = all_of(
    click.option("--keep", multiple=True, metavar="A,B", help="Columns that may stay unchanged: the report leaves them out."),
    click.option("--only-listed", is_flag=True, help="Fail at a column that neither --column nor --keep names."),
)
typed_option = click.option(
    "--typed",
    is_flag=True,
    help="Give numbers and booleans in JSON Lines their own tokens, not those that their text has in other files.",
)
null_option = click.option(
    "--null",
    "nulls",
    multiple=True,
    metavar="TEXT",
    help="Text that means null, such as NULL or NA: such cells stay unchanged. Repeatable.",
)


_CHARACTERS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|"}


def _one_character(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    character = _CHARACTERS.get(value, value)
    if len(character) != 1 or character in '"\r\n\0':
        raise click.UsageError("--delimiter: expected one character, no quote or line end; or comma, tab, semicolon, pipe")
    return character


dialect_options = all_of(
    click.option(
        "--delimiter",
        callback=_one_character,
        metavar="CHAR",
        help="CSV delimiter: a character, or comma, tab, semicolon, pipe. Default: by extension (.tsv, .psv), else a comma.",
    ),
    click.option(
        "--quoting",
        type=click.Choice(["csv", "none"]),
        default="csv",
        show_default=True,
        help="CSV quoting. none: a quote is an ordinary character.",
    ),
    click.option(
        "--encoding",
        type=click.Choice(ENCODINGS),
        help="Encoding of text files, in and out. Default: UTF-16 if a file begins with its byte order mark, else UTF-8.",
    ),
)
_file_options = all_of(
    click.argument("files", metavar="[FILES...]", nargs=-1, type=click.UNPROCESSED),
    click.option(
        "-o",
        "--output",
        default="-",
        type=OutputPath(objects=True),
        metavar="FILE|DIR|URL",
        help="A file for one input, a folder for several. It appears when the run is complete. Default: standard output.",
    ),
    force_option,
    column_option,
    format_option,
    click.option("--at-version", type=click.IntRange(min=0), metavar="N", help="Version of a Delta table. Default: the latest."),
    click.option("--table", metavar="NAME", help="Table of a DuckDB file. FILE.duckdb::NAME names it too."),
    click.option(
        "--rejects",
        type=OutputPath(objects=True, dir_okay=False),
        metavar="FILE",
        help="List failed cells here (file, row, column, code), and continue. CSV or JSON Lines, by extension.",
    ),
    dialect_options,
    resume_option,
    spill_option,
    work_option,
)


class Request(NamedTuple):
    """The options that the three commands share."""

    files: tuple[str, ...]
    output: Place
    force: bool
    columns: tuple[str, ...]
    table_format: Format | None
    at_version: int | None
    table: str | None
    rejects: Place | None
    resume: bool
    spill: Path | None
    work: Path | None
    delimiter: str | None
    quoting: str
    encoding: Encoding | None

    def job(self, operation: JobOperation, nulls: tuple[str, ...] = (), **options: Any) -> Job:
        """Makes a job without files, for ``pass_through``; ``with_files`` adds files. Raises UsageError."""
        if self.rejects is not None and self.rejects.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
            raise click.UsageError("--rejects: name a .csv or a .jsonl file")
        if self.rejects is not None and options.get("missing") == "error":
            raise click.UsageError("--missing error ends at the first token that is not found; --rejects goes on: choose one")
        return Job(
            operation=operation,
            sources=(),
            output=None,
            columns=self.columns,
            rejects=self.rejects,
            resume=self.resume,
            force=self.force,
            spill=self.spill,
            work=self.work,
            dialect=Dialect(self.delimiter, self.encoding, self.quoting == "csv", nulls),
            **options,
        )


def requested(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that make a Request; the command gets it as ``request``."""

    @functools.wraps(command)
    def with_request(*args: Any, files: tuple[str, ...], column: tuple[str, ...], **given: Any) -> Any:
        own = {name: given.pop(name) for name in Request._fields if name in given}
        return command(*args, request=Request(files=tuple(map(_named, files or ("-",))), columns=names(column), **own), **given)

    return _file_options(with_request)


def _named(name: str) -> str:
    """Returns ``-`` for any name of standard input: /dev/stdin cannot always be opened again."""
    return "-" if descriptor_of(Path(name)) == 0 else name


def is_stream(name: str) -> bool:
    """Returns whether a name is that of standard input, or of a pipe, a device or the like, which can be read only once."""
    return name == "-" or (os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name))


def names(texts: tuple[str, ...], option: str = "--column") -> tuple[str, ...]:
    """Splits names at commas; a name with a comma in it is quoted as in CSV."""
    try:
        found = tuple(name for text in texts for row in csv.reader([text]) for name in row)
    except csv.Error:  # a line end, or a name of more than 131,072 characters
        raise click.UsageError(f"{option}: quote a name with a line end in it, as in CSV") from None
    if len(found) < len(texts):
        raise click.UsageError(f"{option}: expected names of columns")
    return found
