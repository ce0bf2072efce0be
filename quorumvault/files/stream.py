"""Converts rows from standard input to standard output, without parts or a manifest: a pipe cannot be resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from quorumvault.client import Client
from quorumvault.files.answers import VaultLookup
from quorumvault.files.job import Done, Job, Progress, Report, ignore
from quorumvault.files.part_files import RejectList, rejects_header
from quorumvault.files.sources import Compression
from quorumvault.files.text.engine import TextSource, open_table
from quorumvault.files.text.rows import Converter, convert_rows
from quorumvault.files.text.streams import TextInput, require_writable, text_output
from quorumvault.formats.table import RowPlace


def pass_through(
    job: Job,
    vault: Client,
    stream: BinaryIO,
    source: TextSource,
    sink: BinaryIO,
    rejects: BinaryIO | None = None,
    progress: Progress = ignore,
    compressions: tuple[Compression | None, Compression | None] = (None, None),
) -> Report:
    """Converts rows from ``stream`` to ``sink``. Each batch of rows asks about each distinct value once.

    Nothing is written before the first batch is answered. The sources and output of ``job`` are not used. ``compressions``: of
    the stream, and of the sink. Raises ColumnError, for a short table before any output.
    """
    configured: Sequence[str] = () if job.columns else vault.fields()
    name = source.name
    given = TextInput(stream, name, compressions[0], job.dialect.encoding)
    table = open_table(job, given.stream, source, job.columns, configured)
    look_up = VaultLookup(job, vault)
    converter = Converter(job, table, name, look_up)
    report = Report(converter.nothing().values, files=1)
    head, listing, size = table.header(), None, 0
    if rejects is not None:
        rejects.write(rejects_header(job.rejects or Path()))
        listing = RejectList(rejects, name, job.rejects or Path())
    with text_output(sink, compressions[1], given.codec) as output:
        for batch in convert_rows(table, converter, RowPlace(), lambda place: False):
            require_writable(batch.text, given.codec, name, batch.line)
            output.write(head + batch.text)
            head = b""
            report.add(batch.converted.counts)
            if listing is not None:
                listing.write(batch.converted.rejects)
            size += batch.size
            progress(Done(report.rows, size))
    report.left = list(table.left)
    report.look_ups = look_up.look_ups
    return report
