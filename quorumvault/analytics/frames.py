"""Frames in memory: exchanges tokens and values in their columns, and looks each distinct text up once. Shared by all kinds.

    frame -> its columns in Arrow -> texts (texts.py) -> distinct texts -> vault (arrow.py) -> columns of their former kind

Each kind of frame has its own part in pandas.py, polars.py or pyarrow.py. Columns that are not named stay as they are.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.analytics.arrow import ArrowVault, look_up_distinct
from quorumvault.analytics.columns import ROWS_SHOWN, TableOperation, in_rows, listed, require_status_free
from quorumvault.analytics.texts import texts_of
from quorumvault.errors import ColumnError, NotText, RequestError, TokensNotFound

#: Columns by name; None for an array or a series, which is one column.
Columns: TypeAlias = "Hashable | Sequence[Hashable] | None"
#: Columns whose numbers, dates and booleans are converted to DuckDB's text; True: all.
Casts: TypeAlias = "Hashable | Sequence[Hashable] | Literal[True]"
#: Looks up distinct texts. Returns a table of ``text``, ``result``, ``status``.
LookUp: TypeAlias = "Callable[[Any], Any]"


@dataclass(frozen=True, slots=True)
class Replaced:
    """A replaced column: its texts, their replacements (large_utf8), and for values their statuses (utf8).

    ``result`` is null where there was no text, or where the status says that there is no value.
    """

    name: Any
    texts: Any = field(repr=False)
    result: Any = field(repr=False)
    status: Any


class Frame(Protocol):
    """A frame of any kind. ``names``: its columns in order; for an array, which is one column, the array's own name."""

    @property
    def names(self) -> Sequence[Any]: ...

    is_array: ClassVar[bool]

    def column(self, name: Any, *, cast: bool) -> Any:
        """Returns the column as a chunked array, with nulls of every kind as null. Raises ColumnError."""

    def replaced(self, columns: Sequence[Replaced]) -> Any:
        """Returns a frame of the same kind with these columns in place, and NAME_status after each that has a status."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: an operation on columns. ``strict``: a token without a value is an error."""

    operation: TableOperation
    columns: Columns
    casts: Casts = ()
    strict: bool = False

    @property
    def tells(self) -> bool:
        """Whether the operation returns values."""
        return self.operation == "detokenize"

    def wanted(self, frame: Frame) -> list[Any]:
        """Returns the columns to replace. Raises ColumnError."""
        names = list(frame.names)
        if len(set(names)) < len(names):
            raise ColumnError("two columns of the frame have one name: give one of them another")
        if frame.is_array:
            if self.columns is not None:
                raise ColumnError("an array is one column: name none")
            return names
        if self.columns is None:
            raise ColumnError(f"name the columns, such as columns={names[:1]!r}" if names else "the frame has no columns")
        wanted = list(dict.fromkeys(listed(self.columns)))
        if not wanted:
            raise ColumnError("name one column or more")
        for name in wanted:
            if name not in names:
                raise ColumnError(f"the frame has no column {name}; it has {', '.join(map(str, names))}")
        if self.tells:
            require_status_free("the frame", wanted, names)
        return wanted

    def cast(self, wanted: Sequence[Any]) -> set[Any]:
        """Returns the columns that need not be text. Raises ColumnError if a cast names a column outside ``wanted``."""
        casts = set(wanted if self.casts is True else listed(self.casts))
        if casts - set(wanted):
            strays = ", ".join(sorted(map(str, casts - set(wanted))))
            raise ColumnError(f"cast names {strays}, which is not among the columns to tokenize")
        return casts


def replaced(frame: Frame, request: Request, look_up: LookUp, first_row: int = 0) -> Any:
    """Returns a frame of the same kind with the requested columns replaced. Errors count rows from ``first_row``.

    Raises ColumnError, TokensNotFound and the errors of ``look_up``.
    """
    wanted = request.wanted(frame)
    casts = request.cast(wanted)
    columns = [frame.column(name, cast=name in casts) for name in wanted]
    texts = [
        texts_of(str(name), column, may_cast=not request.tells, cast=name in casts)
        for name, column in zip(wanted, columns, strict=True)
    ]
    rows = len(texts[0])
    encoded = pa.concat_arrays([pa.array([], pa.large_utf8()), *(chunk for column in texts for chunk in column.chunks)])
    encoded = encoded.dictionary_encode()

    def place(index: int) -> tuple[int, str]:
        found = pc.index(encoded.indices, index).as_py()
        return first_row + found % rows, str(wanted[found // rows])

    try:
        answers = look_up(encoded.dictionary)
    except RequestError as error:
        raise in_rows(error, place) from None
    results, statuses = (_one_array(answers.column(name)).take(encoded.indices) for name in ("result", "status"))
    statuses = statuses.fill_null("null")
    told = []
    for number, (name, column) in enumerate(zip(wanted, texts, strict=True)):
        status = statuses.slice(number * rows, rows) if request.tells else None
        told.append(Replaced(name, column, results.slice(number * rows, rows), status))
    for each in told if request.tells else ():
        _require_told(each, request.strict, frame.is_array, first_row)
    return frame.replaced([replace(each, status=None) for each in told] if frame.is_array else told)


def replaced_at_once(frame: Frame, request: Request, vault: ArrowVault) -> Any:
    """As ``replaced``, with all tokens of one epoch, even if rotations come meanwhile."""
    return replaced(frame, request, partial(look_up_distinct, vault, request.operation))


def _require_told(told: Replaced, strict: bool, is_array: bool, first_row: int) -> None:
    """Raises TokensNotFound if ``strict`` and a token has no value; NotText if an array has a value that is not text."""
    if is_array and pc.any(pc.equal(told.status, "not_text")).as_py():
        raise NotText("a value is a number or a boolean, which no array of text can have: use Client.detokenize")
    if strict:
        lacking = pc.indices_nonzero(pc.invert(pc.is_in(told.status, pa.array(["ok", "null"]))))
        if len(lacking):
            rows = tuple(first_row + row for row in lacking.slice(0, ROWS_SHOWN).to_pylist())
            asked_for = len(told.texts) - told.texts.null_count
            raise TokensNotFound(rows, asked_for, count=len(lacking), column=str(told.name))


def _one_array(column: Any) -> Any:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])
