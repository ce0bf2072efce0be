"""``quorumvault tokenize``, ``detokenize`` and ``retokenize``: files, folders, tables, and standard input."""

import contextlib
import csv
import dataclasses
import functools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from quorumvault.cli.destination import STANDARD, destination
from quorumvault.cli.interrupts import interruptible
from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import Connection, all_of, connection_options, json_option
from quorumvault.cli.output import print_json, say, visible
from quorumvault.files.job import Job, JobOperation, Missing, Progress, Report, ignore
from quorumvault.files.outputs import new_mode
from quorumvault.files.run import run
from quorumvault.files.sources import TEXT, Format, Source, expand, format_of, is_single, split_table
from quorumvault.files.stream import pass_through
from quorumvault.files.work_folder import has_unfinished, work_path
from quorumvault.ownership import reach, umask

_BACK = "values that came back"

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
    help="Default: by the file's extension: .csv, .jsonl, .ndjson, .parquet, .duckdb.",
)
force_option = click.option(
    "--force", is_flag=True, help="Replace outputs that are there, and throw away what an unfinished run has left."
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on with a run that was interrupted, if there is one: no finished part is done again."
)
spill_option = click.option(
    "--spill",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where distinct values are kept on disk meanwhile. Default: beside the output. They are gone at the end.",
)
missing_option = click.option(
    "--missing",
    type=click.Choice(["keep", "null", "error"]),
    default="keep",
    show_default=True,
    help="What to do with a cell whose token is not found.",
)
_status_option = click.option(
    "--status", is_flag=True, help="Add a column NAME_status beside each: ok, null, not_found, not_token. Parquet and DuckDB."
)
_cast_option = click.option(
    "--cast",
    multiple=True,
    metavar="A,B",
    help="Columns that are no text, to be tokenized as the text that DuckDB, or JSON, writes for them. Repeatable.",
)
_keep_options = all_of(
    click.option("--keep", multiple=True, metavar="A,B", help="Columns that may stay as they are: they are not reported."),
    click.option("--only-listed", is_flag=True, help="End with an error at a column that neither --column nor --keep names."),
)
_typed_option = click.option(
    "--typed",
    is_flag=True,
    help="Give numbers and booleans of JSON Lines tokens of their own: not those that their text has in other files.",
)
_file_options = all_of(
    click.argument("files", metavar="[FILES...]", nargs=-1),
    click.option(
        "-o",
        "--output",
        default="-",
        type=click.Path(path_type=Path),
        metavar="FILE|DIR",
        help="A file, for one file; a folder, for several. It appears when all is done. Default: standard output.",
    ),
    force_option,
    column_option,
    format_option,
    click.option("--table", metavar="NAME", help="The table of a DuckDB file, which may also be named FILE.duckdb::NAME."),
    click.option(
        "--rejects",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Go on when a cell cannot be done, and list it here: file, row, column, code. CSV or JSON Lines, by the extension.",
    ),
    resume_option,
    spill_option,
)


class Request(NamedTuple):
    """The options that all three commands have."""

    files: tuple[str, ...]
    output: Path
    force: bool
    columns: tuple[str, ...]
    table_format: Format | None
    table: str | None
    rejects: Path | None
    resume: bool
    spill: Path | None

    def job(self, operation: JobOperation, **options: Any) -> Job:
        """Make a job without files, for ``pass_through``; ``with_files`` adds them. Raises UsageError."""
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
            **options,
        )


def _requested(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that make a Request; the command gets it as ``request``."""

    @functools.wraps(command)
    def with_request(*args: Any, files: tuple[str, ...], column: tuple[str, ...], **given: Any) -> Any:
        own = {name: given.pop(name) for name in Request._fields if name in given}
        return command(*args, request=Request(files=files or ("-",), columns=names(column), **own), **given)

    return _file_options(with_request)


def names(texts: tuple[str, ...], option: str = "--column") -> tuple[str, ...]:
    """Names with commas between them; one that has a comma in it is quoted as in CSV."""
    found = tuple(name for row in csv.reader(texts) for name in row)
    if len(found) < len(texts):
        raise click.UsageError(f"{option}: expected names of columns")
    return found


@click.command(
    short_help="Replace values in files by tokens.",
    epilog="""\b
Examples:
  quorumvault tokenize patients.csv --column SSN,PASSPORT -o patients.tokens.csv
  quorumvault tokenize 'raw/**/*.parquet' --column patient,zip --cast zip -o tokenized/
  quorumvault tokenize lake.duckdb::visits --column patient -o lake.duckdb::visits_tokens""",
)
@_requested
@_cast_option
@_typed_option
@_keep_options
@click.option(
    "--if-token",
    type=click.Choice(["fail", "keep"]),
    default="fail",
    show_default=True,
    help="What to do with a cell that has a token in it already.",
)
@connection_options
@json_option
def tokenize(
    request: Request, cast: tuple[str, ...], keep: tuple[str, ...], connection: Connection, as_json: bool, **options: Any
) -> int:
    """Replace the values in columns of FILES, or of standard input, by tokens, all of one epoch.

    FILES are CSV, JSON Lines, Parquet, tables of DuckDB, globs, and folders; several have one output each below -o DIR.
    Everything else stays as it is, byte by byte in text files, nulls too: in CSV an empty cell without quotes. Text is tokenized,
    so that a value has one token in all files: 42 in CSV is the text "42", and other files have to say so with --cast.
    At the end it prints the rows, the values in each column, the epoch of the tokens, and which columns were left as they are.
    With --rejects, a cell that cannot be tokenized is null.
    """
    job = request.job("tokenize", cast=names(cast, "--cast"), keep=names(keep, "--keep"), **options)
    return _carry_out(request, job, connection, "values that became tokens", as_json)


@click.command(
    short_help="Replace tokens in files by their values.",
    epilog="""\b
Examples:
  quorumvault detokenize patients.tokens.csv --column SSN,PASSPORT -o patients.csv
  quorumvault detokenize claims.parquet --column patient_ssn -o claims.values.parquet
  quorumvault detokenize lake.duckdb::visits --column patient -o visits.parquet""",
)
@_requested
@_status_option
@missing_option
@connection_options
@json_option
def detokenize(request: Request, status: bool, missing: Missing, connection: Connection, as_json: bool) -> int:
    """Replace the tokens in columns of FILES, or of standard input, by their values.

    FILES are CSV, JSON Lines, Parquet, tables of DuckDB, globs, and folders; several have one output each below -o DIR.
    A cell that has no token in it stays as it is, and is not sent. Exit 4 if the value of some token could not be had.
    """
    job = request.job("detokenize", status=status, missing=missing)
    return _carry_out(request, job, connection, _BACK, as_json)


@click.command(
    short_help="Move tokens in files to the active epoch.",
    epilog="\b\nExample:\n  quorumvault retokenize patients.tokens.csv --column SSN,PASSPORT -o patients.new.csv",
)
@_requested
@_status_option
@missing_option
@connection_options
@json_option
def retokenize(request: Request, status: bool, missing: Missing, connection: Connection, as_json: bool) -> int:
    """Replace the tokens in columns of FILES, or of standard input, by those of the active epoch. No value is shown.

    Needs a key that may tokenize. A token that is of that epoch already stays as it is, and so does a cell that has no token in
    it. Exit 4 if some token could not be moved. ``quorumvault migrate`` does it to a whole lake, and keeps what became of what.
    """
    job = request.job("retokenize", status=status, missing=missing)
    return _carry_out(request, job, connection, "tokens that were moved", as_json)


def _carry_out(request: Request, job: Job, connection: Connection, what: str, as_json: bool) -> int:
    if "-" in request.files or request.output == STANDARD:
        report = _stream(request, job, connection)
    else:
        report = run_files(with_files(request, job), connection)
    print_report(report, what, as_json=as_json, err=request.output == STANDARD)
    if job.operation != "detokenize" and len(report.epochs) > 1:
        say(f"The epoch was rotated meanwhile: {job.operation} once more to have all tokens of one epoch.", err=True)
    return PARTIAL if report.partial else 0


def run_files(job: Job, connection: Connection) -> Report:
    """Over files, with what a person sees of it. One that is to go on and has nothing to go on with begins, and says so:
    who always gives --resume, as a scheduler does, means that, and who expected finished parts has to know."""
    with interruptible(job), connection.open() as vault, progress_of(job) as progress:
        if job.resume and not has_unfinished(job):
            say(f"There is no unfinished run to go on with ({work_path(job)}): this one begins.", err=True)
        return run(job, vault, progress)


def with_files(request: Request, job: Job) -> Job:
    """The job with its sources and where they go."""
    with interruptible():
        sources = tuple(expand(request.files, format=request.table_format, table=request.table))
    if sources[0].format in TEXT and job.status:
        raise click.UsageError("--status is for Parquet and DuckDB: a text file keeps its columns")
    _check_typed(job, {source.format for source in sources})
    output, table = split_table(str(request.output))
    is_folder = len(request.files) > 1 or not is_single(request.files[0])
    if not is_folder:
        table = _output_table(sources[0], output, table)
    elif table is not None:
        raise click.UsageError("several files go into a folder: -o DIR")
    return dataclasses.replace(job, sources=sources, output=output, table=table, is_folder=is_folder)


def _output_table(source: Source, output: Path, table: str | None) -> str | None:
    """The table that one file's output is, if it is one. Raises UsageError for a format that it cannot be."""
    if source.format in TEXT:
        return None
    found = format_of(output)
    if source.format == "duckdb" and found == "duckdb":
        return table or source.table
    if found != "parquet":
        others = ", or a DuckDB file" if source.format == "duckdb" else ""
        raise click.UsageError(f"the output of {source} is a .parquet file{others}: {output} is none")
    return None


def _stream(request: Request, job: Job, connection: Connection) -> Report:
    """Standard input, or one text file, to standard output or a file."""
    name = request.files[0]
    if len(request.files) > 1 or not (name == "-" or is_single(name)):
        raise click.UsageError("several files go into a folder: -o DIR")
    if request.resume or job.status:
        raise click.UsageError("--resume and --status are for files: name an input and -o FILE")
    form = request.table_format or format_of(Path(name))
    if form is None:
        raise click.UsageError("say which format it is: --format csv or --format jsonl")
    _check_typed(job, {form})
    if form not in TEXT:
        raise click.UsageError("Parquet and DuckDB go from a file to a file: name an input and -o FILE")
    if request.rejects is not None and request.rejects.resolve() in (Path(name).resolve(), request.output.resolve()):
        raise click.UsageError(f"--rejects {request.rejects}: it is the input, or the output: name another file")
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        if name != "-":
            expand(request.files, format=form)
        stream: BinaryIO = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        mode, widest = _modes(job, stream, request.output)
        sink = stack.enter_context(destination(request.output, force=request.force, mode=mode, widest=widest))
        rejects = None
        if request.rejects is not None:
            rejects = stack.enter_context(destination(request.rejects, force=request.force, widest=0o777))
        vault = stack.enter_context(connection.open())
        progress = stack.enter_context(_progress(_size(stream), request.output == STANDARD))
        source = "standard input" if name == "-" else name
        return pass_through(job, vault, stream, source, form, sink, rejects, progress)


def _check_typed(job: Job, formats: set[Format]) -> None:
    if job.typed and "jsonl" not in formats:
        raise click.UsageError("--typed is for JSON Lines: in files of other formats, text is tokenized")


@contextlib.contextmanager
def progress_of(job: Job) -> Iterator[Progress]:
    """Yield the progress of a run over files, all of whose bytes count."""
    with _progress(sum(source.path.stat().st_size for source in job.sources), False) as progress:
        yield progress


@contextlib.contextmanager
def _progress(total: int | None, writes_rows: bool) -> Iterator[Progress]:
    """Shown on standard error, and only if that is a terminal to which no rows are written."""
    if not sys.stderr.isatty() or (writes_rows and sys.stdout.isatty()):
        yield ignore
        return
    from quorumvault.cli.progress import progress_bar

    with progress_bar(total) as progress:
        yield progress


def _modes(job: Job, stream: BinaryIO, output: Path) -> tuple[int, int]:
    """The mode of an output that is new, and what one that replaces another has at most. Who reads a pipe is not known."""
    with contextlib.suppress(OSError):
        found = os.fstat(stream.fileno())
        if stat.S_ISREG(found.st_mode):
            widest = reach(found, output.stat().st_gid if output.exists() else os.getegid())
            with umask(0o077) as users:
                return new_mode(job, widest, users), widest
    return 0o600, 0o777


def _size(stream: BinaryIO) -> int | None:
    """The length of a file; None for a stream, whose end nobody knows."""
    try:
        return os.fstat(stream.fileno()).st_size or None
    except OSError:
        return None


def print_report(report: Report, what: str, *, as_json: bool, err: bool = False) -> None:
    """Print a report: words to standard error, JSON to standard output, or to standard error (``err``) if rows go there."""
    if as_json:
        print_json(report, err=err)
    else:
        say(_words(report, what), err=True)
        if report.left:
            say(f"left as they are: {_shown(report.left)}", err=True)


#: Names of columns that were left as they are: for people. Machines get all.
_NAMES_SHOWN = 40


def _shown(columns: Sequence[str]) -> str:
    more = f", and {len(columns) - _NAMES_SHOWN} more" if len(columns) > _NAMES_SHOWN else ""
    return ", ".join(map(visible, columns[:_NAMES_SHOWN])) + more


def _words(report: Report, what: str) -> str:
    columns = ", ".join(f"{visible(column)} {count:,}" for column, count in report.values.items())
    files = f"{report.files:,} files, " if report.files > 1 else ""
    words = [f"{files}{report.rows:,} rows; {what}: {columns}"]
    if what != _BACK:
        words.append(f"epoch {', '.join(map(str, report.epochs)) or 'unknown: no token was written'}")
    counts = (
        (report.kept_tokens, "cells had tokens already"),
        (report.not_found, "tokens not found"),
        (report.unavailable, "tokens could not be told, ask again"),
        (report.collision, "tokens in which two values met"),
        (report.no_token, "cells without a token"),
        (report.rejected, "cells listed as rejects"),
        (report.look_ups, "look-ups"),
        (report.parts_kept, "parts were there already"),
    )
    return "; ".join([*words, *(f"{count:,} {what}" for count, what in counts if count)])
