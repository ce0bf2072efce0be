"""``quorumvault census``: counts the tokens in files by epoch."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import click
import msgspec

from quorumvault.cli.file_options import format_option, names
from quorumvault.cli.interrupts import interruptible
from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, print_table, say
from quorumvault.files.census import Tally, count
from quorumvault.files.copies import at_hand
from quorumvault.files.sources import Format, Source, expand

column_option = click.option(
    "--column",
    multiple=True,
    metavar="A,B",
    help="Only these columns, in files that have them. In JSON Lines: members, or paths such as $.patient.name. Repeatable.",
)
#: The most columns with older tokens that a refusal names.
_PLACES_SHOWN = 5


class ColumnCensus(msgspec.Struct):
    """Counts of tokens by epoch, and of texts that are not tokens; nulls are not counted."""

    epochs: dict[int, int]
    no_token: int


class FileCensus(msgspec.Struct):
    file: str
    columns: dict[str, ColumnCensus]


class Census(msgspec.Struct):
    """A census. ``scope`` says what was counted, and so what was not."""

    epochs: dict[int, int]
    files: list[FileCensus]
    scope: str = "the files given"

    def older_than(self, epoch: int) -> list[tuple[str, int]]:
        """Returns the places with tokens of earlier epochs, and the number of these tokens."""
        found = []
        for file in self.files:
            for column, counted in file.columns.items():
                older = sum(tokens for each, tokens in counted.epochs.items() if each < epoch)
                if older:
                    found.append((f"{file.file}, {column}", older))
        return found


@click.command(
    short_help="Count the tokens of each epoch in files.",
    epilog="""\b
Examples:
  quorumvault census 'lake/**/*.parquet'
  quorumvault census lake/ --column patient,ssn --require-epoch 2""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.UNPROCESSED)
@column_option
@format_option
@click.option("--require-epoch", type=click.IntRange(min=1), metavar="E", help="Exit 4 if there are tokens of epochs before E.")
@json_option
def census(
    files: tuple[str, ...], column: tuple[str, ...], table_format: Format | None, require_epoch: int | None, as_json: bool
) -> int:
    """Count the tokens of each epoch in FILES, for each file and column.

    Reads only files and asks no node: a token is recognized by its form. FILES are Parquet, CSV and JSON Lines, globs, folders,
    and DuckDB tables (lake.duckdb::visits). Without --column the command searches all text and lists the columns with tokens; it
    ignores Parquet and DuckDB columns that are not text, such as lists. With --column it also counts other text.

    The counts cover only FILES, not copies elsewhere.
    """
    with interruptible():
        taken = take_census(expand(files, format=table_format), names(column))
    if as_json:
        print_json(taken)
    else:
        print_table(("file", "column", "epoch", "cells"), list(_rows(taken)))
        say(_summary(taken), err=True)
    older = [] if require_epoch is None else taken.older_than(require_epoch)
    if older:
        say(f"quorumvault: {_older_words(older, require_epoch or 0)}", err=True)
    return PARTIAL if older else 0


def take_census(sources: Sequence[Source], columns: Sequence[str]) -> Census:
    """Counts the tokens in sources. Raises UsageError for a column that no source has as text."""
    tallies = []
    for source in sources:
        with at_hand(source) as copy:
            tallies.append((source, count(copy, columns)))
    require_somewhere(columns, [tuple(counted) for _, counted in tallies])
    total: Counter[int] = Counter()
    for _, counted in tallies:
        for tally in counted.values():
            total.update(tally.tokens)
    return Census(_in_order(total), [FileCensus(str(source), _columns(counted)) for source, counted in tallies])


def require_somewhere(columns: Sequence[str], found: Iterable[Sequence[str]]) -> None:
    """Raises UsageError for a named column that no file has. Each file may lack some of them, since files differ."""
    seen = {name.lower() for names in found for name in names}
    lacking = [name for name in columns if name.lower() not in seen]
    if lacking:
        raise click.UsageError(f"no file given has a column of text {', '.join(lacking)}")


def _columns(counted: dict[str, Tally]) -> dict[str, ColumnCensus]:
    return {name: ColumnCensus(_in_order(tally.tokens), tally.no_token) for name, tally in counted.items()}


def _in_order(tokens: Counter[int]) -> dict[int, int]:
    return dict(sorted(tokens.items()))


def _rows(taken: Census) -> Iterator[tuple[str, str, str, str]]:
    for file in taken.files:
        for column, counted in file.columns.items():
            for epoch, tokens in counted.epochs.items():
                yield file.file, column, str(epoch), str(tokens)
            if counted.no_token or not counted.epochs:
                yield file.file, column, "no token", str(counted.no_token)


def _summary(taken: Census) -> str:
    number = len(taken.files)
    given = f"Of the {number} files given" if number > 1 else "Of the file given"
    tokens = "; ".join(f"epoch {epoch}: {tokens:,} tokens" for epoch, tokens in taken.epochs.items())
    return f"{given}: {tokens or 'no token'}."


def _older_words(older: Sequence[tuple[str, int]], epoch: int) -> str:
    shown = "; ".join(f"{place}: {tokens:,}" for place, tokens in older[:_PLACES_SHOWN])
    more = f"; and in {len(older) - _PLACES_SHOWN} more columns" if len(older) > _PLACES_SHOWN else ""
    total = sum(tokens for _, tokens in older)
    return f"{total:,} tokens of epochs before {epoch} are in the files given ({shown}{more}): quorumvault migrate moves them"
