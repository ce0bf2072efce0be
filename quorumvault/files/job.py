"""A run's job and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from quorumvault.errors import QuorumVaultError
from quorumvault.files.lakes import LakeRead
from quorumvault.files.sources import Source
from quorumvault.files.urls import Place
from quorumvault.formats.dialect import PLAIN, Dialect
from quorumvault.formats.table import remaining

JobOperation: TypeAlias = Literal["tokenize", "detokenize", "retokenize"]
IfToken: TypeAlias = Literal["fail", "keep"]
Missing: TypeAlias = Literal["keep", "null", "error"]


class Done(NamedTuple):
    """How far a run is: rows, and bytes of its sources. ``kept``: those of the rows that an earlier run had done."""

    rows: int
    size: int
    kept: int = 0


#: Told each time that more is done, or less, if something has to be done again.
Progress: TypeAlias = Callable[[Done], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``output`` is a file for the one source, or a folder in which sources keep their relative paths; None is in place.

    ``table``: the output is a table of the DuckDB file ``output``. ``columns`` empty: the configured fields. ``cast``: columns
    that are no text and are tokenized as the text that DuckDB, or JSON, writes for them. ``typed``: numbers and booleans of JSON
    Lines are tokenized with their types, and so get other tokens than their text in other files.

    ``keep``: columns that may stay as they are; any other is reported, or with ``only_listed`` is an error. ``if_token`` is
    for tokenize: what to do with a value that is a token; ``missing`` for the others: what becomes of a token that is not
    found. ``status``: NAME_status beside each column, of Parquet and DuckDB. ``rejects``: a file (.csv or .jsonl) that lists
    the cells that cannot be done, which are null then, in place of an error; what is not found is listed there and
    ``missing`` says what becomes of it.
    ``restore_types``: detokenized columns get the types that they had before ``cast``, of Parquet and DuckDB.
    ``allow_plain``: values of the columns may be elsewhere in the output of tokenize, which is not looked through for them.
    ``crosswalk``: a Parquet file of what retokenize moved: old_token, new_token, old_epoch, new_epoch.

    ``resume`` goes on with what an earlier run left; ``force`` replaces outputs, and throws away what an earlier run left.
    ``spill``: the folder in which distinct texts and answers are kept on disk meanwhile, else the work folder.
    ``lake``: the version of a Delta table whose files ``sources`` are; ``output`` is a Delta table then.
    ``root``: in place, the folder that was named, if not all that it has are sources: an unfinished run is found again by it.
    ``work``: the folder on a local disk in which a run is kept whose output is none of files, else the current one.
    """

    operation: JobOperation
    sources: tuple[Source, ...]
    output: Place | None
    is_folder: bool = False
    table: str | None = None
    columns: tuple[str, ...] = ()
    cast: tuple[str, ...] = ()
    typed: bool = False
    dialect: Dialect = PLAIN
    keep: tuple[str, ...] = ()
    only_listed: bool = False
    allow_plain: bool = False
    if_token: IfToken = "fail"  # noqa: S105 - no password
    missing: Missing = "keep"
    status: bool = False
    restore_types: bool = False
    rejects: Place | None = None
    crosswalk: Place | None = None
    resume: bool = False
    force: bool = False
    spill: Path | None = None
    root: Place | None = None
    work: Path | None = None
    lake: LakeRead | None = None

    def left_of(self, names: Sequence[str], selected: Sequence[str], source: Source) -> list[str]:
        """The columns of a source that this job leaves as they are and does not name. Raises ColumnError if it may not."""
        if self.operation != "tokenize":
            return []
        names = [*names, *(self.lake.partition_by if self.lake is not None else ())]
        return remaining(names, selected, self.keep, only_listed=self.only_listed, source=str(source))


class CellCounts(msgspec.Struct):
    """Counts of cells: replaced ones for each column, and the others by the reason why they were not replaced.

    ``epochs`` are those of tokens that were written. ``rejected`` counts what went to the list of rejects. ``left``: columns that
    ``tokenize`` left as they are. ``there`` counts tokens that were of the active epoch, and did not move. ``like_nulls`` counts,
    for each column, cells that others write for a missing value.
    """

    values: dict[str, int] = {}
    rows: int = 0
    kept_tokens: int = 0
    no_token: int = 0
    not_found: int = 0
    unavailable: int = 0
    collision: int = 0
    rejected: int = 0
    there: int = 0
    epochs: list[int] = []
    left: list[str] = []
    like_nulls: dict[str, dict[str, int]] = {}

    def add(self, other: CellCounts) -> None:
        for column, count in other.values.items():
            self.values[column] = self.values.get(column, 0) + count
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.epochs = sorted({*self.epochs, *other.epochs})
        for column, spellings in other.like_nulls.items():
            for spelling, count in spellings.items():
                self.note_like_null(column, spelling, count)
        self.left = list(dict.fromkeys([*self.left, *other.left]))

    def note_like_null(self, column: str, spelling: str, cells: int = 1) -> None:
        known = self.like_nulls.setdefault(column, {})
        known[spelling] = known.get(spelling, 0) + cells


#: The fields of CellCounts that are plain sums.
_ADDED = tuple(name for name in CellCounts.__struct_fields__ if name not in ("values", "epochs", "left", "like_nulls"))


class Report(CellCounts):
    """The counts of a whole run. ``look_ups``: texts sent to the vault; parts: kept from an earlier run, and made.

    ``left_out``: metadata that had values in it. ``not_kept``: what of the layout of files did not come along. ``in_order``:
    columns in the order of whose values the rows are. ``untouched``: files in place that had nothing to move. ``still_there``:
    where the values are still that tokens stand for. Each is there if it has something to tell.
    """

    files: int = 0
    look_ups: int = 0
    parts_kept: int = 0
    parts_done: int = 0
    left_out: list[str] | msgspec.UnsetType = msgspec.UNSET
    not_kept: list[str] | msgspec.UnsetType = msgspec.UNSET
    in_order: list[str] | msgspec.UnsetType = msgspec.UNSET
    untouched: int | msgspec.UnsetType = msgspec.UNSET
    still_there: list[str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def partial(self) -> bool:
        """True if some cell could not be done."""
        return bool(self.not_found or self.unavailable or self.collision or self.rejected)


class RunError(QuorumVaultError):
    """A run was not begun, or not ended. The text says what to do."""


def ignore(done: Done) -> None:
    """A Progress that does nothing."""
