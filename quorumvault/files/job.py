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
    """The progress of a run: rows, and bytes of its sources. ``kept``: the rows among them that an earlier run had done."""

    rows: int
    size: int
    kept: int = 0


#: Called each time that more is done, or less, if something has to be done again.
Progress: TypeAlias = Callable[[Done], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``output`` is a file for the only source, or a folder in which sources keep their relative paths; None means in place.

    ``table``: the output is a table of the DuckDB file ``output``. ``columns`` empty: the configured fields. ``cast``: columns
    of other types than text, tokenized as the text that DuckDB, or JSON, writes for them. ``typed``: numbers and booleans of JSON
    Lines are tokenized with their types, and so get other tokens than their texts in other files.

    ``keep``: columns that may stay as they are; any other column is reported, or is an error with ``only_listed``. ``if_token``,
    for tokenize: what to do with a value that is a token. ``missing``, for the others: what to do with a token that is not found.
    ``status``: adds NAME_status beside each column, for Parquet and DuckDB. ``rejects``: a file (.csv or .jsonl) that lists the
    cells that cannot be done; they become null in place of an error. Tokens that are not found are listed there, and treated as
    ``missing`` says.
    ``restore_types``: detokenized columns get their types from before ``cast``, for Parquet and DuckDB.
    ``allow_plain``: values of the columns may be elsewhere in the output of tokenize, which is not searched for them.
    ``crosswalk``: a Parquet file of the tokens that retokenize moved: old_token, new_token, old_epoch, new_epoch.

    ``resume`` continues an earlier run; ``force`` replaces outputs, and discards the state of an earlier run.
    ``spill``: the folder for distinct texts and answers during the run; by default the work folder.
    ``lake``: the version of a Delta table whose data files are ``sources``; ``output`` is then a Delta table.
    ``root``: for a run in place, the named folder, if not all of its files are sources: it identifies an unfinished run.
    ``work``: the local folder for the run's state if its output is not a file; by default the current folder.
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
    if_token: IfToken = "fail"  # noqa: S105 - not a password
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
        """Returns the columns that this job leaves as they are and does not name. Raises ColumnError if it must not."""
        if self.operation != "tokenize":
            return []
        names = [*names, *(self.lake.partition_by if self.lake is not None else ())]
        return remaining(names, selected, self.keep, only_listed=self.only_listed, source=str(source))


class CellCounts(msgspec.Struct):
    """Counts of cells: replaced cells for each column, and other cells by the reason why they were not replaced.

    ``epochs``: the epochs of the tokens written. ``rejected`` counts cells in the list of rejects. ``left``: columns that
    ``tokenize`` left as they are. ``there`` counts tokens that were of the active epoch already and did not move. ``like_nulls``
    counts, for each column, cells with a usual spelling of a missing value; ``damaged`` those that begin like a token and are
    none, which ``no_token`` counts too.
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
    damaged: dict[str, int] = {}

    def add(self, other: CellCounts) -> None:
        for own, more in ((self.values, other.values), (self.damaged, other.damaged)):
            for column, count in more.items():
                own[column] = own.get(column, 0) + count
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
_ADDED = tuple(name for name in CellCounts.__struct_fields__ if name not in ("values", "epochs", "left", "like_nulls", "damaged"))


class Report(CellCounts):
    """The counts of a whole run. ``look_ups``: texts sent to the vault; parts: kept from an earlier run, and made.

    ``left_out``: metadata not copied since it had values in it. ``not_kept``: layout properties that outputs lack. ``in_order``:
    columns by whose values the rows are sorted. ``untouched``: files in place that had nothing to move. ``still_there``: places
    that still have the tokenized values. Empty lists are left out.
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
    """A run did not start, or did not finish. The text says what to do."""


class SourceChanged(RunError):
    """A source has changed since the run began. The rows read may come from two states, so nothing of the run is kept."""

    def __init__(self, source: object) -> None:
        super().__init__(f"{source} was changed while it was read, and nothing is kept: begin again")


def ignore(done: Done) -> None:
    """Does nothing: a Progress for callers that show none."""
