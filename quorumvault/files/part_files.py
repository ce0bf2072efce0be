"""The files of one part: its rows, its rejects, and the tokens that retokenize moved. A part counts once all are synced."""

import contextlib
import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from quorumvault.durable import sync_file
from quorumvault.files.job import Job
from quorumvault.files.sources import Source
from quorumvault.files.urls import Place

REJECTS_HEADER = ("file", "row", "column", "code")


class Reject(NamedTuple):
    """A cell that failed: its row, counted from 1, its column, and a code. It never holds the cell's text."""

    row: int
    column: str
    code: str


class PartFile(msgspec.Struct, frozen=True):
    """One file of a finished part: ``digest`` is its SHA-256."""

    name: str
    size: int
    digest: str


class PartFiles:
    """The files of part ``number``, in the work folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self.number = number
        self.data = folder / f"{number:06}.data"
        self.rejects = folder / f"{number:06}.rejects"
        #: The moved tokens: one line OLD,NEW for each.
        self.pairs = folder / f"{number:06}.pairs"

    def clear(self) -> None:
        """Removes the files of an attempt that failed."""
        for path in (self.data, self.rejects, self.pairs):
            path.unlink(missing_ok=True)

    def finish(self) -> list[PartFile]:
        """Syncs the files. Returns their names, sizes and digests."""
        return [_described(path) for path in (self.data, self.rejects, self.pairs) if path.exists()]

    def is_whole(self, files: Sequence[PartFile]) -> bool:
        """Returns whether the files still have the sizes and digests that ``finish`` returned."""
        return all(self._is_same(file) for file in files)

    def _is_same(self, file: PartFile) -> bool:
        path = self._folder / file.name
        return path.is_file() and path.stat().st_size == file.size and _digest(path) == file.digest


def _described(path: Path) -> PartFile:
    sync_file(path)
    return PartFile(path.name, path.stat().st_size, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RejectList:
    """Writes the rejects of one source: as CSV lines if the list's name ends in ``.csv``, else as JSON Lines."""

    def __init__(self, sink: BinaryIO, source: str, listing: Place) -> None:
        self._sink = sink
        self._source = source
        self._is_csv = listing.suffix.lower() == ".csv"

    def write(self, rejects: Iterable[Reject]) -> None:
        rows = [(self._source, *reject) for reject in rejects]
        if self._is_csv:
            self._sink.write(_csv_lines(rows))
        else:
            records = (dict(zip(REJECTS_HEADER, row, strict=True)) for row in rows)
            self._sink.writelines(msgspec.json.encode(record) + b"\n" for record in records)


class PartLists:
    """Writes the lists of one part. Those that the job does not ask for are None."""

    def __init__(self, rejects: RejectList | None, pairs: BinaryIO | None) -> None:
        self._rejects = rejects
        self._pairs = pairs

    def write(self, rejects: Iterable[Reject], pairs: Iterable[str] = ()) -> None:
        """Writes the lists. ``pairs``: OLD,NEW for each moved token; unused without a crosswalk."""
        if self._rejects is not None:
            self._rejects.write(rejects)
        if self._pairs is not None:
            self._pairs.writelines(f"{pair}\n".encode() for pair in pairs)


@contextlib.contextmanager
def part_lists(job: Job, source: Source, files: PartFiles) -> Iterator[PartLists]:
    with contextlib.ExitStack() as stack:
        rejects = pairs = None
        if job.rejects is not None:
            rejects = RejectList(stack.enter_context(files.rejects.open("wb")), str(source), job.rejects)
        if job.crosswalk is not None:
            pairs = stack.enter_context(files.pairs.open("wb"))
        yield PartLists(rejects, pairs)


def rejects_header(listing: Place) -> bytes:
    """Returns the first bytes of a list of rejects: CSV has a header line, JSON Lines none."""
    return _csv_lines([REJECTS_HEADER]) if listing.suffix.lower() == ".csv" else b""


def _csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
