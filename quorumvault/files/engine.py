"""The interface of a format: convert a part of a source into files of its own, and assemble all parts into an output."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from quorumvault.files.answers import AnswerCache
from quorumvault.files.job import CellCounts
from quorumvault.files.part_files import PartFiles
from quorumvault.files.sources import Source
from quorumvault.formats.table import RowPlace

#: Told of so many rows more of a part, and bytes of its source.
PartProgress: TypeAlias = Callable[[int, int], None]


class ConvertedPart(NamedTuple):
    """A converted part: where it ends, whether that is the source's end, counts of its cells, the epoch of its tokens or None."""

    stop: RowPlace
    is_last: bool
    counts: CellCounts
    epoch: int | None


class Conversion(Protocol):
    """Converts one source. That its columns are fit was checked when this was made."""

    @property
    def left_out(self) -> Sequence[str]:
        """What of the source does not come along because it has values of columns that become tokens."""

    @property
    def not_kept(self) -> Sequence[str]:
        """How the source was laid out where its output, once it was assembled, is not."""

    def first_values(self, rows: int) -> dict[str, list[str]]:
        """Returns the texts of each column in the first rows, in their order, less nulls."""

    def opened(self, output: Path) -> AbstractContextManager[BinaryIO]:
        """Opens an output that was assembled, to be searched: text as UTF-8 without compression."""

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: PartProgress) -> ConvertedPart:
        """Writes the files of the part from ``start`` to ``stop``, or to where the format ends a part. May be repeated.

        Raises EpochMoved if the answers turned out to be of several epochs.
        """

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        """Writes ``output``, a file that does not exist yet, from all parts in order."""


class Engine(Protocol):
    """Makes the conversions of one run, which share one cache of answers."""

    @property
    def answers(self) -> AnswerCache: ...

    @property
    def look_ups(self) -> int:
        """The number of texts that were sent to the vault."""

    def conversion(self, source: Source) -> Conversion:
        """Raises ColumnError for columns that the source is known not to have, or that cannot be worked on."""

    def explain(self, error: Exception) -> str | None:
        """Describes an error of a library in words that have no value in them. Returns None for any other error."""
