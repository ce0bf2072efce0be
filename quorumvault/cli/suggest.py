"""``quorumvault suggest``: names the columns of a file that look like identifiers, and the command that tokenizes them."""

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from quorumvault.cli.file_options import dialect_options, format_option
from quorumvault.cli.interrupts import interruptible
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, print_table, say
from quorumvault.files.copies import at_hand
from quorumvault.files.job import Job
from quorumvault.files.sources import TEXT, Format, Source, expand
from quorumvault.files.suggest import Sample, reasons, sample
from quorumvault.files.urls import Place
from quorumvault.formats.dialect import Dialect, Encoding


class Suggestion(msgspec.Struct, frozen=True):
    """A suggestion. ``columns``: those that look like identifiers, with the reasons. ``keep``: all other columns."""

    file: str
    columns: dict[str, list[str]]
    keep: list[str]
    command: str | None


@click.command(
    short_help="List the columns of a file that look like identifiers.", epilog="\b\nExample:\n  quorumvault suggest patients.csv"
)
@click.argument("file", type=click.UNPROCESSED)
@format_option
@click.option("--table", metavar="NAME", help="Table of a DuckDB file. FILE.duckdb::NAME names it too.")
@dialect_options
@json_option
def suggest(
    file: str,
    table_format: Format | None,
    table: str | None,
    delimiter: str | None,
    quoting: str,
    encoding: Encoding | None,
    as_json: bool,
) -> None:
    """List the columns of FILE that look like identifiers, with the reasons, and print a command that tokenizes them.

    Judges by the columns' names, by the form of the values in the first 10,000 rows, and by how many values differ. Prints no
    value and asks no node. The result is only an aid: it misses identifiers in free text, and column names in other languages.
    The printed command has --only-listed, so that a column added later is not overlooked.
    """
    dialect = Dialect(delimiter, encoding, quoting == "csv")
    with interruptible():
        sources = expand([file], format=table_format, table=table)
        if len(sources) != 1:
            raise click.UsageError("name one file: its columns are looked at")
        with at_hand(sources[0]) as copy:
            found = sample(copy, Job(operation="tokenize", sources=(), output=None, dialect=dialect))
    made = _suggestion(sources[0], found, dialect)
    if as_json:
        print_json(made)
        return
    print_table(("column", "why"), [(name, "; ".join(why)) for name, why in made.columns.items()])
    say(f"not suggested: {', '.join(made.keep) or 'none'}", err=True)
    say(
        made.command or "No column looks like an identifier. Name some with --column if you know better.",
        err=made.command is None,
    )


def _suggestion(source: Source, found: dict[str, Sample], dialect: Dialect) -> Suggestion:
    columns = {name: why for name, each in found.items() if (why := reasons(name, each))}
    keep = [name for name in found if name not in columns]
    cast = [name for name in columns if not found[name].is_text]
    return Suggestion(str(source), columns, keep, _command(source, list(columns), cast, keep, dialect) if columns else None)


def _command(source: Source, columns: Sequence[str], cast: Sequence[str], keep: Sequence[str], dialect: Dialect) -> str:
    words = ["quorumvault", "tokenize", str(source), "--column", _listed(columns)]
    words += ["--cast", _listed(cast)] if cast else []
    words += ["--keep", _listed(keep)] if keep else []
    for option, value in (("--delimiter", dialect.delimiter), ("--encoding", dialect.encoding)):
        words += [option, value] if value is not None else []
    words += [] if dialect.quoting else ["--quoting", "none"]
    first, dot, rest = source.place.name.partition(".")
    name = f"{first}.tokens{dot}{rest}" if source.format in (*TEXT, "parquet") else f"{source.table}.tokens.parquet"
    return shlex.join([*words, "--only-listed", "-o", _beside(source.place, name)])


def _beside(place: Place, name: str) -> str:
    """Returns an output of this name beside a source, or in the current folder if the source's place takes no files."""
    if isinstance(place, Path):
        return str(place.with_name(name))
    return f"{str(place).rpartition('/')[0]}/{name}" if place.is_written_to else name


def _listed(names: Sequence[str]) -> str:
    """Returns names in the form that --column reads."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()
