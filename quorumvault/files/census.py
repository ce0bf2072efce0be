"""Counts the tokens of each epoch in files. It needs no vault and no key.

    a source -> the texts of its columns, in chunks -> tokens, by their form -> a count for each epoch

Memory holds one chunk. Of each text only its kind is counted; nothing else is kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from quorumvault.crypto.tokens import is_token, parse_tokens
from quorumvault.errors import Malformed
from quorumvault.files.sources import Source, compression_of, delimiter_of
from quorumvault.files.text.streams import TextInput
from quorumvault.formats.csv import CsvTable, grammar
from quorumvault.formats.header import require_header
from quorumvault.formats.json import check_json_text
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.jsonpath import PathStep, concrete_path, texts_in
from quorumvault.formats.lines import Lines, split_end

if TYPE_CHECKING:
    import pyarrow as pa

#: The number of texts of a column of a text file that are checked together.
_CHUNK: Final = 4096
#: The most places of JSON records to report tokens at: records whose names are data have unboundedly many.
_PLACES: Final = 1000
_PREFIX: Final = "qv_"
#: The decoder does not convert numbers: they are not needed, and may have more digits than Python converts.
_decode = json.JSONDecoder(parse_int=len, parse_float=len).decode


@dataclass(slots=True)
class Tally:
    """The counts of one column: its tokens by epoch, and its other texts. Nulls and other types are not counted."""

    tokens: Counter[int] = field(default_factory=Counter)
    no_token: int = 0

    def add(self, texts: Sequence[str]) -> None:
        epochs = [parsed[0] for parsed in parse_tokens(texts) if parsed is not None]
        self.tokens.update(epochs)
        self.no_token += len(texts) - len(epochs)

    def add_array(self, texts: pa.Array) -> None:
        """Counts ``texts``, an array of any text type or a dictionary of texts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        plain = texts.cast(pa.large_utf8())
        like_tokens = plain.filter(pc.starts_with(plain, _PREFIX))
        self.no_token += len(plain) - plain.null_count - len(like_tokens)
        counted = like_tokens.value_counts()
        parsed = parse_tokens(counted.field("values").to_pylist())
        for token, count in zip(parsed, counted.field("counts").to_pylist(), strict=True):
            if token is None:
                self.no_token += count
            else:
                self.tokens[token[0]] += count


def count(source: Source, columns: Sequence[str] = ()) -> dict[str, Tally]:
    """Returns a tally for each of ``columns``. If ``columns`` is empty, returns one for each text column with a token in it.

    Columns of JSON Lines are named by top-level members or by paths; columns found are paths. A named column that the source does
    not have as text is left out. Raises the errors of reading the source.
    """
    match source.format:
        case "csv":
            with _lines(source) as lines:
                csv = CsvTable(lines, grammar(delimiter_of(source.path), quoting=True))
                if any(map(is_token, csv.names)):
                    require_header(csv.names, str(source))
                tallies = _count_cells(csv, [name for name in csv.names if not columns or name in columns])
        case "jsonl":
            places = columns or _places(source)
            with _lines(source) as lines:
                records = JsonLinesTable(lines)
                tallies = _count_cells(records, places)
                tallies = {column: tally for column, tally in tallies.items() if column not in records.lacking()}
        case _:
            tallies = _count_columnar(source, columns)
    return tallies if columns else {column: tally for column, tally in tallies.items() if tally.tokens}


@contextmanager
def _lines(source: Source) -> Iterator[Lines]:
    with source.path.open("rb") as stream:
        name = str(source)
        yield Lines(TextInput(stream, name, compression_of(source.path), None).stream, name)


def _count_columnar(source: Source, columns: Sequence[str]) -> dict[str, Tally]:
    from quorumvault.files.columnar.engine import read_texts, text_columns

    wanted = _those_of(text_columns(source), columns)
    tallies = {column: Tally() for column in wanted}
    if wanted:
        for chunk in read_texts(source, wanted):
            for column, texts in chunk.items():
                tallies[column].add_array(texts)
    return tallies


def _those_of(present: Iterable[str], columns: Sequence[str]) -> list[str]:
    """Returns the named columns, or all, in the source's spelling: Parquet and DuckDB ignore the case of names."""
    named = {column.lower() for column in columns}
    return [column for column in present if not named or column.lower() in named]


def _count_cells(table: CsvTable | JsonLinesTable, columns: Sequence[str]) -> dict[str, Tally]:
    table.select_named(columns)
    tallies = [Tally() for _ in table.columns]
    cells = (cell for row in table.rows() for cell in row.cells())
    texts = ((cell.column, text) for cell in cells if isinstance(text := cell.value, str))
    for position, chunk in _in_chunks(texts):
        tallies[position].add(chunk)
    return dict(zip(table.columns, tallies, strict=True))


def _places(source: Source) -> list[str]:
    """Returns the paths at which the records have tokens, with [*] for the elements of an array."""
    found: dict[tuple[PathStep, ...], None] = {}
    with _lines(source) as lines:
        _, line = lines.without_mark()
        while line:
            record = _decoded(line, lines)
            for place, text in texts_in(record):
                if place not in found and is_token(text):
                    found[place] = None
            if len(found) > _PLACES:
                raise lines.error(f"tokens are in more than {_PLACES:,} different places of the records so far: name columns")
            line = next(lines, b"")
    return list(map(concrete_path, found))


def _decoded(line: bytes, lines: Lines) -> object:
    """Returns the decoded JSON of a line, None for a blank line."""
    text, _ = split_end(line)
    if not text.strip(b" \t"):
        return None
    try:
        check_json_text(text, "the record")
    except Malformed as error:
        raise lines.error(error.detail) from None
    return _decode(text.decode())


def _in_chunks(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields the texts in lists, each of one column, which are cheaper to check."""
    held: dict[int, list[str]] = {}
    for position, text in texts:
        waiting = held.setdefault(position, [])
        waiting.append(text)
        if len(waiting) == _CHUNK:
            yield position, held.pop(position)
    yield from held.items()
