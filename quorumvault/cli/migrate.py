"""``quorumvault migrate``: moves the tokens in many files to the active epoch, and writes a crosswalk of old and new tokens."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from quorumvault.cli.census import column_option, require_somewhere
from quorumvault.cli.destination import STANDARD, OutputPath
from quorumvault.cli.file_options import (
    force_option,
    format_option,
    missing_option,
    names,
    resume_option,
    spill_option,
    work_option,
)
from quorumvault.cli.files import run_files
from quorumvault.cli.interrupts import interruptible
from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import Connection, bulk_connection_options, json_option
from quorumvault.cli.output import say, visible
from quorumvault.cli.report import print_report
from quorumvault.files.census import count
from quorumvault.files.copies import at_hand
from quorumvault.files.job import Job, Missing
from quorumvault.files.manifest import shown
from quorumvault.files.sources import Format, Source, expand, is_single, require_fitting, root_of
from quorumvault.files.urls import Place
from quorumvault.files.work_folder import plan_under_way


@click.command(
    short_help="Move the tokens of a whole data lake to the active epoch.",
    epilog="""\b
Examples:
  quorumvault migrate 'lake/**/*.parquet' --in-place --crosswalk 1-to-2.parquet
  quorumvault migrate lake/ -o moved/ --column patient,ssn --resume""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.UNPROCESSED)
@click.option("--in-place", is_flag=True, help="Replace FILES, after the tokens of all of them are moved.")
@click.option(
    "-o",
    "--output",
    type=OutputPath(objects=True, file_okay=False),
    metavar="DIR|URL",
    help="Folder for the new files, which keep their relative paths.",
)
@click.option(
    "--crosswalk",
    type=OutputPath(objects=True, dir_okay=False),
    metavar="X.parquet",
    help="Write a list of the moved tokens: old_token, new_token, old_epoch, new_epoch.",
)
@column_option
@missing_option
@format_option
@resume_option
@force_option
@spill_option
@work_option
@bulk_connection_options
@json_option
def migrate(
    files: tuple[str, ...],
    in_place: bool,
    output: Place | None,
    crosswalk: Place | None,
    column: tuple[str, ...],
    missing: Missing,
    table_format: Format | None,
    resume: bool,
    force: bool,
    spill: Path | None,
    work: Path | None,
    connection: Connection,
    as_json: bool,
) -> int:
    """Replace the tokens in FILES with those of the active epoch, one epoch for all files. Shows no value.

    FILES are Parquet, CSV and JSON Lines, globs, folders, and DuckDB tables (lake.duckdb::visits). Without --column the command
    first searches them for columns with tokens. Files and crosswalk get their names only when everything is done; --resume
    continues an interrupted run, even one interrupted during the renaming. Exit 4 if some token could not be moved.

    Needs a key that may tokenize.
    """
    _require_places(in_place, output, crosswalk)
    with interruptible():
        given = _read_twice(expand(files, format=table_format))
        root = root_of(given) if in_place and (len(files) > 1 or not is_single(files[0])) else None
    job = Job(
        operation="retokenize",
        sources=tuple(given),
        output=output,
        is_folder=output is not None,
        columns=names(column),
        missing=missing,
        crosswalk=crosswalk,
        resume=resume,
        force=force,
        spill=spill,
        root=root,
        work=work,
    )
    with interruptible():
        job = dataclasses.replace(job, sources=tuple(_sources(job)))
    if not job.sources:
        say("No file given has a token in a column of text: nothing to do.", err=True)
        return 0
    report = run_files(job, connection)
    print_report(report, "tokens that were moved", as_json=as_json)
    return PARTIAL if report.partial else 0


def _require_places(in_place: bool, output: Place | None, crosswalk: Place | None) -> None:
    if crosswalk is not None and crosswalk != STANDARD:
        with interruptible():
            require_fitting(crosswalk, "parquet")
    if STANDARD in (output, crosswalk):
        raise click.UsageError("standard output takes no folder and no Parquet file: name another place")
    if in_place == (output is not None):
        raise click.UsageError("say where the moved files go: --in-place, or -o DIR")


def _read_twice(given: list[Source]) -> list[Source]:
    """Returns the sources. Raises click.UsageError for a source that can be read only once."""
    for source in given:
        if source.remote is None and not source.path.is_file():
            raise click.UsageError(f"{visible(str(source))} is no regular file, and files are read twice: name one")
    return given


def _sources(job: Job) -> list[Source]:
    """Returns the sources with tokens to move. Once a run gives names, returns the run's sources: renamed ones may have none."""
    begun = plan_under_way(job) if job.resume else None
    if begun is None:
        return plan(job.sources, job.columns)
    columns = {(source.path, source.table): source.columns for source in begun.sources}
    places = [(source, (shown(source), source.table)) for source in job.sources]
    found = [dataclasses.replace(source, columns=columns[place]) for source, place in places if place in columns]
    return found or list(job.sources)


def plan(sources: Sequence[Source], columns: Sequence[str]) -> list[Source]:
    """Returns the sources with tokens to move, and their columns: the named columns that a source has, or those with tokens.

    Raises UsageError for a column that no source has as text.
    """
    found = []
    for source in sources:
        with at_hand(source) as copy:
            found.append(tuple(count(copy, columns)))
    require_somewhere(columns, found)
    return [dataclasses.replace(source, columns=own) for source, own in zip(sources, found, strict=True) if own]
