"""A Delta table on the command line: the input is its folder, at a version; the output is a Delta table too."""

import dataclasses
from pathlib import Path

import click

from quorumvault.cli.file_options import Request
from quorumvault.files.job import Job
from quorumvault.files.lakes import Lakes, lake_format
from quorumvault.files.manifest import Manifest, path_of
from quorumvault.files.outputs import OutputExists
from quorumvault.files.urls import Url
from quorumvault.files.work_folder import UnfinishedRun, has_unfinished, work_path


def delta_job(request: Request, job: Job) -> Job | None:
    """Returns the job over a Delta table, None if no such folder was named.

    Raises UsageError, LakeError, ColumnError and OutputExists.
    """
    table = Path(request.files[0])
    if len(request.files) > 1 or lake_format(table) != "Delta":
        if request.at_version is not None:
            raise click.UsageError("--at-version is for the folder of one Delta table")
        return None
    try:
        from quorumvault.files.columnar.delta import read
    except ModuleNotFoundError:
        Lakes().refuse(table)
        raise
    if not job.columns:
        raise click.UsageError("--column: say which columns of a Delta table")
    output = request.output
    if isinstance(output, Url):
        raise click.UsageError("a Delta table is written to a folder of this machine: name one")
    job = dataclasses.replace(job, output=output, is_folder=True)
    _require_free(request, output, job)
    begun = Manifest.load(work_path(job)) if request.resume else None
    given = [path_of(source.target).name for source in begun.plan.sources] if begun is not None else []
    sources, lake = read(table, request.at_version, output, job, given)
    return dataclasses.replace(job, sources=sources, lake=lake)


def _require_free(request: Request, output: Path, job: Job) -> None:
    """Raises OutputExists if the output exists, LakeError if it is in a table.

    Raises UnfinishedRun if an earlier run is unfinished, since the output's content may belong to that run.
    """
    Lakes().refuse_output(output.absolute().parent)
    if request.resume or not output.exists():
        return
    is_table = lake_format(output) == "Delta"
    if has_unfinished(job) and not (is_table and request.force):
        others = ", --force begins again" if is_table else ""
        raise UnfinishedRun(f"{work_path(job)} is an unfinished run to {output}: --resume goes on{others}")
    if is_table and not request.force:
        raise OutputExists(f"{output} is a Delta table: name another folder, or give --force to commit a version with other rows")
    if not is_table and (not output.is_dir() or any(output.iterdir())):
        raise OutputExists(f"{output} exists and is no Delta table: name another folder")
