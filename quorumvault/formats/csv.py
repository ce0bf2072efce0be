"""CSV (RFC 4180), every byte kept: quotes that were not needed, line ends, a byte order mark, a last line without its end.

    row    cell *("," cell) end          end    CR LF, LF, or the end of the file
    cell   bare                          bare   characters other than , " CR LF; none at all is a null
         | '"' *(any but '"' | '""') '"'        a quoted cell is text, the empty one too

Python's csv module does not tell a null from an empty string, and forgets which cells were quoted. Here a cell keeps its raw
text. A replacement is quoted if the original was, or if it has to be, so a column that is tokenized and detokenized comes back
byte for byte. Text outside this grammar is refused with its line number: guessing where a cell ends would tokenize the wrong
text. One exception: an empty line is not a row and passes through (in a table of one column it would be a null, which passes
through as well). Delimiters other than the comma have the same grammar.
"""

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from quorumvault.errors import ColumnError
from quorumvault.formats.header import LIKELY_DELIMITERS, require_header, shown_names
from quorumvault.formats.lines import MAX_BYTES, Lines
from quorumvault.formats.table import (
    RowPlace,
    UnwritableValue,
    cast_positions,
    configured_columns,
    listed,
    remaining,
    require_named,
)

# Possessive (*+): a quoted cell of any length matches without a stack and without backtracking.
_QUOTED: Final = r'"[^"]*+(?:""[^"]*+)*+"'
_decode_string = msgspec.json.Decoder(str).decode


def decode_cell(raw: str) -> str | None:
    """Returns the text of a cell, None for a null."""
    if raw.startswith('"'):
        return raw[1:-1].replace('""', '"')
    return raw or None


class Grammar:
    """The grammar of rows with one delimiter. Without ``quoting`` a quote is an ordinary character; only empty cells are null."""

    def __init__(self, delimiter: str, *, quoting: bool) -> None:
        self.delimiter = delimiter
        self.quoting = quoting
        escaped = re.escape(delimiter)
        bare = rf'[^"{escaped}\r\n]*+'
        self.cells = re.compile(rf"({_QUOTED}|{bare}){escaped}")
        #: A line that ends within a quoted cell.
        self.open = re.compile(rf'(?:(?:{_QUOTED}|{bare}){escaped})*+"[^"]*+(?:""[^"]*+)*+')
        self._special = re.compile(rf'["{escaped}\r\n]' if quoting else rf"[{escaped}\r\n]")

    def encode(self, text: str | None, *, quoted: bool) -> str:
        """Returns a cell with this text, in quotes if ``quoted`` or if it needs quotes.

        Raises UnwritableValue if it needs quotes and the grammar has none.
        """
        if text is None:
            return ""
        if not self.quoting:
            if self._special.search(text):
                raise UnwritableValue("a value with a delimiter or a line end in it cannot be written without quotes")
            return text
        if quoted or not text or self._special.search(text):
            return '"' + text.replace('"', '""') + '"'
        return text


grammar = functools.cache(Grammar)
COMMAS: Final = grammar(",", quoting=True)


class CsvCell:
    __slots__ = ("_grammar", "_position", "_raws", "column")

    def __init__(self, column: int, raws: list[str], position: int, grammar: Grammar) -> None:
        self.column = column
        self._raws = raws
        self._position = position
        self._grammar = grammar

    @property
    def value(self) -> str:
        raw = self._raws[self._position]
        return decode_cell(raw) or "" if raw.startswith('"') and self._grammar.quoting else raw

    def replace(self, value: str | msgspec.Raw | None) -> None:
        """Replaces the cell's value. A value that is not a string is written as its JSON text."""
        if isinstance(value, msgspec.Raw):
            json = bytes(value)
            value = _decode_string(json) if json.startswith(b'"') else json.decode()
        self._raws[self._position] = self._grammar.encode(value, quoted=self._raws[self._position].startswith('"'))


class CsvRow:
    """A row: its raw cells, its line end, and the positions of the selected columns among the cells."""

    __slots__ = ("_end", "_grammar", "_positions", "line", "raws", "size")

    def __init__(self, line: int, text: str, raws: list[str], end: str, positions: Sequence[int], grammar: Grammar) -> None:
        self.line = line
        self.size = len(text)
        self.raws = raws
        self._end = end
        self._positions = positions
        self._grammar = grammar

    @property
    def is_record(self) -> bool:
        return bool(self._positions)

    def cells(self) -> list[CsvCell]:
        raws, grammar = self.raws, self._grammar
        return [CsvCell(column, raws, position, grammar) for column, position in enumerate(self._positions) if raws[position]]

    def render(self) -> bytes:
        return (self._grammar.delimiter.join(self.raws) + self._end).encode()


class CsvTable:
    """A header, then rows with as many cells as the header. Raises InputError if the header is missing or unreadable."""

    def __init__(self, lines: Lines, grammar: Grammar = COMMAS) -> None:
        self._lines = lines
        self._grammar = grammar
        self._mark, first = lines.without_mark()
        if not first.strip():
            raise lines.error("expected a line of column names: CSV without one is not read", line=1)
        self._header_text = self._whole_row(first)
        raws = self._split(self._header_text, 1)[0]
        self._names = [decode_cell(raw) or "" for raw in raws] if grammar.quoting else raws
        self._positions: tuple[int, ...] = ()
        self._left: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, selected or not."""
        return tuple(self._names)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._names[position] for position in self._positions)

    @property
    def left(self) -> tuple[str, ...]:
        return self._left

    def leave(self, keep: Sequence[str], *, only_listed: bool) -> None:
        shown = dict(zip(self._names, shown_names(self._names), strict=True))
        with self._hinting():
            left = remaining(self._names, self.columns, keep, only_listed=only_listed, source=self._lines.source)
        self._left = tuple(shown[name] for name in left)

    def select_named(self, names: Sequence[str]) -> None:
        with self._hinting():
            require_named(names, self._names, self._lines.source)
        self._select(names)

    def positions(self, names: Sequence[str]) -> frozenset[int]:
        return cast_positions(names, self.columns)

    def select_configured(self, paths: Sequence[str]) -> None:
        with self._hinting():
            found = configured_columns(paths, self._names, self._lines.source)
        self._select(found)

    @contextlib.contextmanager
    def _hinting(self) -> Iterator[None]:
        """Adds a hint to an error about a table of one column: another delimiter may separate several.

        Shows no names that look like data.
        """
        try:
            yield
        except ColumnError as error:
            require_header(self._names, self._lines.source)
            found = [delimiter for delimiter in LIKELY_DELIMITERS if len(self._names) == 1 and delimiter in self._names[0]]
            if not found:
                raise
            raise ColumnError(f"{error}. If {found[0]!r} parts its columns, say --delimiter {_spelled(found[0])}") from None

    def _select(self, names: Sequence[str]) -> None:
        twice = [name for name in names if self._names.count(name) > 1]
        if twice:
            require_header(self._names, self._lines.source)
            raise ColumnError(f"{self._lines.source} has more than one column {listed(twice)}: which one is meant is not clear")
        self._positions = tuple(self._names.index(name) for name in dict.fromkeys(names))

    def header(self) -> bytes:
        return self._mark + self._header_text.encode()

    def skip_to(self, place: RowPlace) -> None:
        self._lines.seek(place.offset, place.line)

    def place(self, row: int) -> RowPlace:
        return RowPlace(row, self._lines.offset, self._lines.number)

    def rows(self) -> Iterator[CsvRow]:
        width = len(self._names)
        for line in self._lines:
            number = self._lines.number
            text = self._whole_row(line)
            raws, end = self._split(text, number)
            if len(raws) != width and raws != [""]:
                raise self._lines.error(f"has {len(raws)} cells, and the header has {width}", line=number)
            yield CsvRow(number, text, raws, end, self._positions if len(raws) == width else (), self._grammar)

    def check_seen(self) -> None:
        """Does nothing: the header named the columns."""

    def _whole_row(self, line: bytes) -> str:
        """Returns the row that begins with this line: while a quoted cell is open, the next line belongs to the row."""
        number = self._lines.number
        text = self._decode(line)
        if text.count('"') % 2 == 0 or not self._grammar.quoting:
            return text
        if not self._grammar.open.fullmatch(text):
            raise self._lines.error(_STRAY_QUOTE)
        parts, size, quotes = [text], len(text), 1
        while quotes % 2:
            more = next(self._lines, None)
            if more is None:
                raise self._lines.error("a quoted cell begins in this row and does not end", line=number)
            parts.append(self._decode(more))
            size += len(more)
            quotes += parts[-1].count('"')
            if size > MAX_BYTES:
                words = f"a quoted cell begins in this row and does not end within {MAX_BYTES >> 20} MiB"
                raise self._lines.error(words, line=number)
        return "".join(parts)

    def _decode(self, line: bytes) -> str:
        if b"\0" in line:
            raise self._lines.error("has a NUL byte: this is no text, or text in UTF-16; expected UTF-8")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise self._lines.error(
                f"is not UTF-8, at byte {error.start + 1} of the line: name the file's encoding, --encoding"
            ) from None

    def _split(self, text: str, number: int) -> tuple[list[str], str]:
        """Returns the raw cells and the row's line end."""
        end = "\r\n" if text.endswith("\r\n") else "\n" if text.endswith("\n") else ""
        body = text[: len(text) - len(end)]
        delimiter = self._grammar.delimiter
        if ('"' not in body or not self._grammar.quoting) and "\r" not in body:
            return body.split(delimiter), end
        if not self._grammar.quoting:
            raise self._lines.error(_STRAY_RETURN, line=number)
        raws: list[str] = self._grammar.cells.findall(body + delimiter)
        # findall skips text that does not match; the sum of lengths then falls short.
        if sum(map(len, raws)) + len(raws) != len(body) + 1:
            raise self._lines.error(_STRAY_RETURN if "\r" in _unquoted(body) else _STRAY_QUOTE, line=number)
        return raws, end


_STRAY_QUOTE: Final = (
    "has a quote where none may be: a cell with a quote in it is quoted, and the quote doubled; "
    "if quotes are characters like any other in this file, say --quoting none"
)
_STRAY_RETURN: Final = "has a carriage return without a line feed outside of quotes: expected lines that end in LF or CR LF"


def _spelled(delimiter: str) -> str:
    return {"\t": "tab"}.get(delimiter, f"'{delimiter}'")


def _unquoted(body: str) -> str:
    return re.sub(_QUOTED, "", body)
