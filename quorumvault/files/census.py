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
from quorumvault.formats.json import check_json_text
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.jsonpath import PathStep, concrete_path, texts_in
from quorumvault.formats.lines import Lines, split_end

if TYPE_CHECKING:
    import pyarrow as pa

#: Texts of a column of a text file that are judged together.
_CHUNK: Final = 4096
#: Places in JSON records in which tokens are found. Records whose names are data have no end of them.
_PLACES: Final = 1000
_PREFIX: Final = "qv_"
#: Numbers are not looked at, and may have more digits than Python converts.
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
        """``texts``: of any type of text, or a dictionary of them."""
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
    """A tally for each of the columns; without any named, for each that has a token in it, of all columns of text.

    Columns of JSON Lines are names of top-level members, or paths; those that are found are paths. Of the columns named, those
    that the source does not have as text are not in the answer. Raises what reading the source raises.
    """
    match source.format:
        case "csv":
            with _lines(source) as lines:
                csv = CsvTable(lines, grammar(delimiter_of(source.path), quoting=True))
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
    """The columns named, or all of them, as the source spells them: Parquet and DuckDB do not tell names apart by case alone."""
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
    """A line's JSON, None for a blank line."""
    text, _ = split_end(line)
    if not text.strip(b" \t"):
        return None
    try:
        check_json_text(text, "the record")
    except Malformed as error:
        raise lines.error(error.detail) from None
    return _decode(text.decode())


def _in_chunks(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields the texts in lists of one column each, which are cheaper to judge."""
    held: dict[int, list[str]] = {}
    for position, text in texts:
        waiting = held.setdefault(position, [])
        waiting.append(text)
        if len(waiting) == _CHUNK:
            yield position, held.pop(position)
    yield from held.items()
