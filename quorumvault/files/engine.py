"""What a run needs of a format: a part converted into files of its own, and parts put together to an output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from quorumvault.files.job import Counts, Progress
from quorumvault.files.pieces import Piece
from quorumvault.files.sources import Source
from quorumvault.formats.table import Place


class Done(NamedTuple):
    """A part: where it ends, whether its source does, what became of its cells, and the epoch of its tokens if it has any."""

    stop: Place
    is_last: bool
    counts: Counts
    epoch: int | None


class Conversion(Protocol):
    """Of one source, whose columns are known to be fit for it."""

    def convert(self, start: Place, stop: Place | None, piece: Piece, progress: Progress) -> Done:
        """Writes the files of a part, from ``start`` as far as a part goes, or to ``stop``; the same again if it is called again.

        ``progress`` is told rows and bytes of the source that were done since it was told last. Raises EpochMoved if the answers
        turned out to be of several epochs.
        """
        ...

    def assemble(self, pieces: Sequence[Piece], output: Path) -> None:
        """Writes the output, a file that is not there yet, of all parts in their order."""
        ...


class Engine(Protocol):
    """Conversions that share their answers."""

    @property
    def look_ups(self) -> int:
        """Texts that were sent to be answered."""
        ...

    def conversion(self, source: Source) -> Conversion:
        """Raises ColumnError for columns that the source is known not to have, or that cannot be worked on."""
        ...

    def forget(self) -> None:
        """Answers so far are asked for again: they are of an older epoch."""
        ...

    def explain(self, error: Exception) -> str | None:
        """An error of a library's, in words that have no value in them; None for any other error."""
        ...

    def close(self) -> None: ...
