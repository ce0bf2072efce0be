"""JSON Lines: one object a line, in which members are replaced.

Everything but the replaced values keeps every byte: blanks, the spelling of names and numbers, line ends, empty lines. An object
that has a name twice is refused with its line number (json.py), as the nodes refuse it.
"""

from collections.abc import Iterator, Sequence

import msgspec

from quorumvault.errors import ColumnError, ConfigError, Invalid, Malformed
from quorumvault.formats.fields import FieldSet, Slot
from quorumvault.formats.json import Document, check_json_text, encode
from quorumvault.formats.jsonpath import FieldPath, PathError, concrete_path
from quorumvault.formats.lines import Lines, split_end
from quorumvault.formats.remaining import Remaining
from quorumvault.formats.rewriting import place_by_name, plain_names, rewritten
from quorumvault.formats.table import RowPlace, cast_positions, unlisted

_decode_string = msgspec.json.Decoder(str).decode


class JsonCell:
    """A cell. ``put`` is the JSON text that replaces the value; empty while the value is not replaced."""

    __slots__ = ("_slot", "column", "put")

    def __init__(self, slot: Slot) -> None:
        self.column = slot.field
        self.put = b""
        self._slot = slot

    @property
    def value(self) -> str | msgspec.Raw:
        raw = self._slot.raw
        return _decode_string(raw) if raw.startswith(b'"') else msgspec.Raw(raw)

    def replace(self, value: str | msgspec.Raw | None) -> None:
        self.put = encode(value)

    def place(self, text: bytes) -> tuple[int, int]:
        """Returns start and end of the value in its record's text. The start is -1 if the name alone does not determine it."""
        slot = self._slot
        start = place_by_name(text, slot.name, slot.raw)
        return start, start + len(slot.raw)

    def apply(self) -> None:
        """Replaces the value in its document."""
        self._slot.replace(msgspec.Raw(self.put))


class JsonRow:
    __slots__ = ("_cells", "_document", "_end", "line", "size")
    is_record = True

    def __init__(self, line: int, size: int, document: Document, end: bytes, fields: FieldSet) -> None:
        self.line = line
        self.size = size
        self._document = document
        self._end = end
        self._cells = [JsonCell(slot) for slot in fields.find(document)]

    def cells(self) -> list[JsonCell]:
        return self._cells

    def render(self) -> bytes:
        document = self._document
        text = _spliced(document.text, self._cells)
        if text is None:
            for cell in self._cells:
                if cell.put:
                    cell.apply()
            text = b"".join(rewritten(document))
        return text + self._end


def _spliced(text: bytes, cells: list[JsonCell]) -> bytes | None:
    """Returns the text with the replaced cells. Returns None if a cell's name does not determine its place."""
    if not plain_names(text):
        return None
    places = [(*cell.place(text), cell.put) for cell in cells if cell.put]
    places.sort()
    parts, kept = [b""], 0
    for start, end, put in places:
        if start < 0:
            return None
        parts += text[kept:start], put
        kept = end
    parts.append(text[kept:])
    return b"".join(parts)


#: The hint in errors about JSON on several lines, and about an array of records.
_ONE_A_LINE = ". Each line has to be one object: jq -c . writes an object in one line, and jq -c '.[]' those of an array"


def _as_path(name: str) -> str:
    """Returns the JSONPath expression of a column's name. Raises ColumnError for an invalid one."""
    try:
        return str(FieldPath.parse(name)) if name.startswith("$") else concrete_path((name,))
    except PathError as error:
        raise ColumnError(f"{name!r}: {error}") from None


class BlankLine:
    """A line with no record in it."""

    __slots__ = ("_text", "line", "size")
    is_record = False

    def __init__(self, line: int, text: bytes) -> None:
        self.line = line
        self.size = len(text)
        self._text = text

    def cells(self) -> list[JsonCell]:
        return []

    def render(self) -> bytes:
        return self._text


class JsonLinesTable:
    """Columns are names of top-level members, or JSONPath expressions as in fields.yaml."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._mark, self._first = lines.without_mark()
        self._fields = FieldSet.compile((), "columns")
        self.columns: tuple[str, ...] = ()
        self._named = False
        self._records = 0
        self._leads: list[str] = []
        self._unseen: set[str] = set()
        self._remaining: Remaining | None = None
        self._only_listed = False

    def select_named(self, names: Sequence[str]) -> None:
        """Selects columns. A name that begins with $ is a JSONPath expression."""
        columns = tuple(dict.fromkeys(names))
        try:
            self._select(columns, list(map(_as_path, columns)), "columns")
        except ConfigError as error:
            raise ColumnError(str(error)) from None
        self._named = True

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(self._remaining.names) if self._remaining else ()

    def leave(self, keep: Sequence[str], *, only_listed: bool) -> None:
        paths = [FieldPath.parse(_as_path(name)) for name in self.columns]
        self._remaining = Remaining(paths, [FieldPath.parse(_as_path(name)) for name in keep])
        self._only_listed = only_listed

    def positions(self, names: Sequence[str]) -> frozenset[int]:
        """Returns the positions of columns. A name may have another spelling than the column's: $.id is id."""
        return cast_positions([_as_path(name) for name in names], [_as_path(column) for column in self.columns])

    def select_configured(self, paths: Sequence[str]) -> None:
        self._select(tuple(paths), paths, "the nodes' fields.yaml")

    def _select(self, columns: tuple[str, ...], paths: Sequence[str], where: str) -> None:
        self._fields = FieldSet.compile(paths, where)
        self.columns = columns
        steps = [FieldPath.parse(path).steps for path in paths]
        #: The top-level members that lead to the columns, and those that no record has had so far.
        self._leads = [step[0] if isinstance(step[0], str) else "" for step in steps]
        self._unseen = set(self._leads) - {""}

    def header(self) -> bytes:
        return self._mark

    def skip_to(self, place: RowPlace) -> None:
        self._lines.seek(place.offset, place.line)
        self._first = next(self._lines, b"")
        self._records = place.row
        self._unseen.difference_update(place.seen)

    def place(self, row: int) -> RowPlace:
        seen = dict.fromkeys(lead for lead in self._leads if lead and lead not in self._unseen)
        return RowPlace(row, self._lines.offset, self._lines.number, tuple(seen))

    def rows(self) -> Iterator[JsonRow | BlankLine]:
        line: bytes | None = self._first
        while line:
            yield self._row(line)
            line = next(self._lines, None)

    def lacking(self) -> list[str]:
        """Returns the selected columns that no record has had so far; an empty list before the first record."""
        if not self._records:
            return []
        return [column for column, lead in zip(self.columns, self._leads, strict=True) if lead in self._unseen]

    def check_seen(self) -> None:
        lacking = self.lacking()
        if not lacking:
            return
        if self._named:
            raise ColumnError(f"no record of {self._lines.source} has {', '.join(lacking)}")
        if len(lacking) == len(self.columns):
            words = f"no record of {self._lines.source} has any of the configured fields ({', '.join(lacking)})"
            raise ColumnError(f"{words}. Name some members with --column")

    def _row(self, line: bytes) -> JsonRow | BlankLine:
        text, end = split_end(line)
        if not text.strip(b" \t"):
            return BlankLine(self._lines.number, line)
        try:
            check_json_text(text, "the record")
            document = Document.parse(text)
        except (Malformed, Invalid) as error:
            hint = _ONE_A_LINE if text.strip() == b"{" or text.lstrip().startswith(b"[") else ""
            raise self._lines.error(error.detail + hint) from None
        self._records += 1
        if self._unseen:
            self._unseen.difference_update(document.members)
        row = JsonRow(self._lines.number, len(line), document, end, self._fields)
        if self._remaining is not None:
            self._remaining.meet(document.members)
            if self._only_listed and self._remaining.names:
                raise unlisted(self.left, f"{self._lines.source}: line {self._lines.number}")
        return row
