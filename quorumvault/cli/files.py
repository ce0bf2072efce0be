"""``quorumvault tokenize``, ``detokenize`` and ``retokenize``: files, folders, tables, and standard input."""

import contextlib
import dataclasses
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from quorumvault.cli.delta import delta_job
from quorumvault.cli.destination import STANDARD, destination, still_free
from quorumvault.cli.file_options import (
    Request,
    cast_option,
    is_stream,
    keep_options,
    missing_option,
    names,
    null_option,
    requested,
    status_option,
    typed_option,
)
from quorumvault.cli.interrupts import interruptible
from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import Connection, bulk_connection_options, json_option
from quorumvault.cli.output import say, visible
from quorumvault.cli.report import BACK, print_report
from quorumvault.cli.standard_streams import HandleError, is_standard_output, is_standard_stream
from quorumvault.client import Client
from quorumvault.files import object_store
from quorumvault.files.job import Job, Missing, Progress, Report, ignore
from quorumvault.files.outputs import new_mode
from quorumvault.files.run import run
from quorumvault.files.sources import (
    TEXT,
    Format,
    Source,
    compression_of,
    delimiter_of,
    expand,
    format_of,
    is_single,
    printable,
    require_fitting,
    resolved,
    split_table,
)
from quorumvault.files.stream import pass_through
from quorumvault.files.text.engine import TextSource
from quorumvault.files.urls import Place, Url
from quorumvault.files.work_folder import has_unfinished, work_path
from quorumvault.formats.dialect import PLAIN
from quorumvault.ownership import group_of_new, reach, umask

_ALONE = "what is read from a pipe, a device or standard input goes alone: name no other file"


@click.command(
    short_help="Replace values in files with tokens.",
    epilog="""\b
Examples:
  quorumvault tokenize patients.csv --column SSN,PASSPORT -o patients.tokens.csv
  quorumvault tokenize 'raw/**/*.parquet' --column patient,zip --cast zip -o tokenized/
  quorumvault tokenize lake.duckdb::visits --column patient -o lake.duckdb::visits_tokens""",
)
@requested
@cast_option
@typed_option
@null_option
@keep_options
@click.option(
    "--if-token",
    type=click.Choice(["fail", "keep"]),
    default="fail",
    show_default=True,
    help="What to do with a cell that already contains a token.",
)
@click.option(
    "--allow-plain",
    is_flag=True,
    help="Allow values of the columns elsewhere in the output. Without it a run fails if it finds any there or in metadata.",
)
@bulk_connection_options
@json_option
def tokenize(
    request: Request, cast: tuple[str, ...], keep: tuple[str, ...], connection: Connection, as_json: bool, **options: Any
) -> int:
    """Replace the values in columns of FILES, or of standard input, with tokens, all of one epoch.

    FILES are CSV (also .tsv and .psv), JSON Lines, either with .gz or .zst appended, Parquet, DuckDB tables, globs, and folders.
    Several files have one output each below -o DIR. The folder of a single Delta table becomes a new Delta table. Everything else
    stays unchanged, byte by byte in text files. Nulls stay too; in CSV a null is an empty cell without quotes. Only text is
    tokenized, so a value has the same token in all files: 42 in CSV is the text "42", and in other formats needs --cast.
    At the end the command prints the rows, the values in each column, the tokens' epoch, and the columns left unchanged.
    With --rejects, a cell that cannot be tokenized becomes null.
    """
    job = request.job("tokenize", cast=names(cast, "--cast"), keep=names(keep, "--keep"), **options)
    return _carry_out(request, job, connection, "values that became tokens", as_json)


@click.command(
    short_help="Replace tokens in files with their values.",
    epilog="""\b
Examples:
  quorumvault detokenize patients.tokens.csv --column SSN,PASSPORT -o patients.csv
  quorumvault detokenize claims.parquet --column patient_ssn -o claims.values.parquet
  quorumvault detokenize lake.duckdb::visits --column patient -o visits.parquet""",
)
@requested
@status_option
@click.option(
    "--restore-types",
    is_flag=True,
    help="Restore the column types that tokenize --cast changed and recorded. Parquet and DuckDB.",
)
@missing_option
@bulk_connection_options
@json_option
def detokenize(
    request: Request, status: bool, restore_types: bool, missing: Missing, connection: Connection, as_json: bool
) -> int:
    """Replace the tokens in columns of FILES, or of standard input, with their values.

    FILES are CSV, JSON Lines, Parquet, DuckDB tables, globs, and folders. Several files have one output each below -o DIR. The
    folder of a single Delta table becomes a new Delta table. A cell without a token stays unchanged and is not sent. Exit 4 if
    the value of some token could not be recovered.
    """
    job = request.job("detokenize", status=status, restore_types=restore_types, missing=missing)
    return _carry_out(request, job, connection, BACK, as_json)


@click.command(
    short_help="Move tokens in files to the active epoch.",
    epilog="\b\nExample:\n  quorumvault retokenize patients.tokens.csv --column SSN,PASSPORT -o patients.new.csv",
)
@requested
@status_option
@missing_option
@bulk_connection_options
@json_option
def retokenize(request: Request, status: bool, missing: Missing, connection: Connection, as_json: bool) -> int:
    """Replace the tokens in columns of FILES, or of standard input, with those of the active epoch. Shows no value.

    Needs a key that may tokenize. Tokens of the active epoch and cells without a token stay unchanged. Exit 4 if some token could
    not be moved. ``quorumvault migrate`` moves the tokens of a whole data lake, and can list each token with its replacement.
    """
    job = request.job("retokenize", status=status, missing=missing)
    return _carry_out(request, job, connection, "tokens that were moved", as_json)


def _carry_out(request: Request, job: Job, connection: Connection, what: str, as_json: bool) -> int:
    if request.output == STANDARD or any(map(is_stream, request.files)):
        report = _stream(request, job, connection)
    else:
        report = run_files(with_files(request, job), connection)
    print_report(report, what, as_json=as_json, err=request.output == STANDARD)
    if job.operation != "detokenize" and len(report.epochs) > 1:
        say(f"The epoch was rotated meanwhile: {job.operation} once more to have all tokens of one epoch.", err=True)
    return PARTIAL if report.partial else 0


def run_files(job: Job, connection: Connection) -> Report:
    """Runs a job over files, and shows its progress. If there is nothing to resume, --resume begins a new run and says so:
    a scheduler that always passes --resume expects this, and a user who expected finished parts has to know."""
    with interruptible(job), connection.open() as vault, progress_of(job, vault) as progress:
        if job.resume and not has_unfinished(job):
            say(f"There is no unfinished run to go on with ({work_path(job)}): this one begins.", err=True)
        return run(job, vault, progress)


def with_files(request: Request, job: Job) -> Job:
    """Returns the job with its sources and outputs."""
    with interruptible():
        lake = delta_job(request, job)
        if lake is not None:
            _check_options(lake, {"parquet"})
            return lake
        sources = tuple(expand(request.files, format=request.table_format, table=request.table))
        output, table = split_table(request.output.text if isinstance(request.output, Url) else str(request.output))
    if sources[0].format in TEXT and job.status:
        raise click.UsageError("--status is for Parquet and DuckDB: a text file keeps its columns")
    if sources[0].format in TEXT and job.restore_types:
        raise click.UsageError("--restore-types is for Parquet and DuckDB: cells of a text file have no type")
    _check_options(job, {source.format for source in sources})
    with interruptible():
        is_folder = len(request.files) > 1 or not is_single(request.files[0]) or (isinstance(output, Url) and output.is_folder)
    if request.work is not None and not isinstance(output, Url):
        raise click.UsageError("--work is for an output in an object store: any other run is kept beside its output")
    if not is_folder:
        with interruptible():
            table = _output_table(sources[0], output, table)
    elif table is not None:
        raise click.UsageError("several files go into a folder: -o DIR")
    return dataclasses.replace(job, sources=sources, output=output, table=table, is_folder=is_folder)


def _output_table(source: Source, output: Place, table: str | None) -> str | None:
    """Returns the table that one file's output is, None if it is not a table. Raises UsageError for an impossible format."""
    if source.format in TEXT:
        require_fitting(output, source.format)
        return None
    found = format_of(output)
    if source.format == "duckdb" and found == "duckdb":
        return table or source.table
    if found != "parquet":
        others = ", or a DuckDB file" if source.format == "duckdb" else ""
        raise click.UsageError(f"the output of {source} is a .parquet file{others}: {printable(output)} is none")
    return None


def _text_source(request: Request) -> tuple[Place, TextSource]:
    """Returns standard input, or the one text file named. Raises UsageError, InputsError for anything else."""
    name = request.files[0]
    place: Place = STANDARD
    if len(request.files) > 1 or not (is_stream(name) or is_single(name)):
        raise click.UsageError("several files go into a folder: -o DIR" if request.output == STANDARD else _ALONE)
    if name == "-":
        form, shown = request.table_format, "standard input"
        if form is None:
            raise click.UsageError("say which format it is: --format csv or --format jsonl")
        if request.table is not None:
            raise click.UsageError("--table: only a DuckDB file has tables")
    else:
        (source,) = expand(request.files, format=request.table_format, table=request.table)
        place, form, shown = source.place, source.format, printable(source.place, source.table)
    if form not in TEXT:
        what, tables = ("a DuckDB table", "FILE.duckdb::TABLE or -o ") if form == "duckdb" else ("Parquet", "")
        way = "from a file to a file: name an input and" if is_stream(name) else "to a file: say"
        raise click.UsageError(f"{visible(shown)}: {what} goes {way} -o {tables}FILE.parquet")
    if isinstance(request.output, Url) or request.output != STANDARD:
        require_fitting(request.output, form)
    return place, TextSource(shown, form, delimiter_of(place))


def _stream(request: Request, job: Job, connection: Connection) -> Report:
    """Converts standard input, or one text file, to standard output or a file."""
    with interruptible():
        place, table = _text_source(request)
    if request.resume or job.status or job.restore_types:
        raise click.UsageError("--resume, --status and --restore-types are for files: name an input and -o FILE")
    _check_options(job, {table.format})
    _require_told_apart(request, place)
    compressions = compression_of(place), compression_of(request.output)
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        stream: BinaryIO = sys.stdin.buffer if place == STANDARD else stack.enter_context(_opened(place))
        mode, widest = _modes(job, stream, request.output)
        sink = stack.enter_context(destination(request.output, force=request.force, mode=mode, widest=widest))
        rejects = None
        if request.rejects is not None:
            rejects = stack.enter_context(destination(request.rejects, force=request.force, widest=0o777))
            stack.enter_context(still_free(request.output, force=request.force))  # else the list could appear without its output
        vault = stack.enter_context(connection.open())
        progress = stack.enter_context(
            _progress(_size(stream) if compressions[0] is None else None, vault, request.output == STANDARD)
        )
        return pass_through(job, vault, stream, table, sink, rejects, progress, compressions)


def _require_told_apart(request: Request, place: Place) -> None:
    """Raises UsageError, HandleError if an output would be the input, or two outputs would be the same file."""
    if request.rejects is not None:
        is_open = isinstance(request.rejects, Path) and is_standard_stream(request.rejects)
        if is_open or resolved(request.rejects) in (resolved(place), resolved(request.output)):
            raise click.UsageError(f"--rejects {printable(request.rejects)}: it is the input, or the output: name another file")
    if request.output == STANDARD and isinstance(place, Path) and is_standard_output(0 if place == STANDARD else place):
        shown = "standard input" if place == STANDARD else visible(printable(place))
        raise HandleError(f"{shown}: it is the input, and standard output goes to it")


def _opened(place: Place) -> contextlib.AbstractContextManager[BinaryIO]:
    return object_store.reading(place) if isinstance(place, Url) else place.open("rb")


def _check_options(job: Job, formats: set[Format]) -> None:
    if msgspec.structs.replace(job.dialect, nulls=()) != PLAIN and not formats.intersection(TEXT):
        raise click.UsageError("--delimiter, --quoting and --encoding are for text files: CSV, JSON Lines")
    if job.typed and "jsonl" not in formats:
        raise click.UsageError("--typed is for JSON Lines: in files of other formats, text is tokenized")


@contextlib.contextmanager
def progress_of(job: Job, vault: Client) -> Iterator[Progress]:
    """Yields the progress of a run over files, measured by their bytes."""
    sizes = [size for source in job.sources if compression_of(source.path) is None and (size := source.size()) is not None]
    with _progress(sum(sizes) if len(sizes) == len(job.sources) else None, vault, False) as progress:
        yield progress


@contextlib.contextmanager
def _progress(total: int | None, vault: Client, writes_rows: bool) -> Iterator[Progress]:
    """Yields a progress, shown on standard error only if that is a terminal to which no rows are written."""
    if not sys.stderr.isatty() or (writes_rows and sys.stdout.isatty()):
        yield ignore
        return
    from quorumvault.cli.progress import progress_bar

    with progress_bar(total, vault.trouble) as progress:
        yield progress


def _modes(job: Job, stream: BinaryIO, output: Place) -> tuple[int, int]:
    """Returns the mode of a new output, and the widest mode of one that replaces another. A pipe's readers are unknown."""
    with contextlib.suppress(OSError):
        found = os.fstat(stream.fileno())
        if stat.S_ISREG(found.st_mode) and isinstance(output, Path):
            group = output.stat().st_gid if output.exists() else group_of_new(output.absolute().parent)
            widest = reach(stream.fileno(), group)
            with umask(0o077) as users:
                return new_mode(job, widest, users), widest
    return 0o600, 0o777


def _size(stream: BinaryIO) -> int | None:
    """Returns the length of a file; None for a stream, whose length is unknown."""
    try:
        return os.fstat(stream.fileno()).st_size or None
    except OSError:
        return None
