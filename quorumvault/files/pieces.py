"""The files of one part: its rows, the rejects among them, and what retokenize moved in it. Whole and synced, or not counted."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

REJECTS_HEADER = ("file", "row", "column", "code")


class Reject(NamedTuple):
    """A cell that could not be done: its row, counted from 1, its column, and a code. Never what is in it."""

    row: int
    column: str
    code: str


class PieceFile(msgspec.Struct, frozen=True):
    """One file of a finished part: ``digest`` is its SHA-256."""

    name: str
    size: int
    digest: str


class Piece:
    """The files of part ``number``, in the work folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self.number = number
        self.data = folder / f"{number:06}.data"
        self.rejects = folder / f"{number:06}.rejects"
        #: What was moved: a line for each token, the old one, a comma, the new one.
        self.pairs = folder / f"{number:06}.pairs"

    def clear(self) -> None:
        """Removes what an attempt that failed has left."""
        for path in (self.data, self.rejects, self.pairs):
            path.unlink(missing_ok=True)

    def finish(self) -> list[PieceFile]:
        """Syncs the files, and says what they are."""
        return [_described(path) for path in (self.data, self.rejects, self.pairs) if path.exists()]

    def is_whole(self, files: Sequence[PieceFile]) -> bool:
        """Whether they still are what they were when they were finished."""
        return all(self._is_same(file) for file in files)

    def _is_same(self, file: PieceFile) -> bool:
        path = self._folder / file.name
        return path.is_file() and path.stat().st_size == file.size and _digest(path) == file.digest


def _described(path: Path) -> PieceFile:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return PieceFile(path.name, path.stat().st_size, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RejectList:
    """Writes rejects of one file: JSON Lines, or CSV without its header if the list that they are for is called ``.csv``."""

    def __init__(self, sink: BinaryIO, source: str, listing: Path) -> None:
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


def rejects_header(listing: Path) -> bytes:
    """What such a list begins with."""
    return _csv_lines([REJECTS_HEADER]) if listing.suffix.lower() == ".csv" else b""


def _csv_lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
