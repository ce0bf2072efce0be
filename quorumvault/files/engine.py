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

#: Called with the number of further rows of a part that are done, and their bytes in the source.
PartProgress: TypeAlias = Callable[[int, int], None]


class ConvertedPart(NamedTuple):
    """A converted part: its end, whether that is the source's end, counts of its cells, and the epoch of its tokens or None."""

    stop: RowPlace
    is_last: bool
    counts: CellCounts
    epoch: int | None


class Conversion(Protocol):
    """Converts one source. The constructor has checked its columns."""

    @property
    def left_out(self) -> Sequence[str]:
        """The parts of the source that are not copied, since they have values of columns that become tokens."""

    @property
    def not_kept(self) -> Sequence[str]:
        """The properties of the source's layout that the assembled output does not have."""

    def first_values(self, rows: int) -> dict[str, list[str]]:
        """Returns the texts of each column in the first rows, in order, without nulls."""

    def opened(self, output: Path) -> AbstractContextManager[BinaryIO]:
        """Opens an assembled output to be searched: text as UTF-8 without compression."""

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: PartProgress) -> ConvertedPart:
        """Writes the files of the part from ``start`` to ``stop``, or to the end that the format chooses. May be repeated.

        Raises EpochMoved if the answers are of several epochs.
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
        """Makes the conversion of a source. Raises ColumnError for columns that it is known to lack, or that are unfit."""

    def explain(self, error: Exception) -> str | None:
        """Describes a library's error in words without values. Returns None for any other error."""
