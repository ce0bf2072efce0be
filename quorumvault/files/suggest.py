"""Finds columns that look like identifiers: by name, form of values, and number of distinct values. No value is kept.

    a source -> a sample of its first rows, column by column -> reasons for each column, none for most

The result helps people decide. The search knows no natural language and does not find identifiers in free text.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, Final

from quorumvault.errors import Malformed
from quorumvault.files.job import Job
from quorumvault.files.sources import TEXT, Source, compression_of, delimiter_of
from quorumvault.files.text.streams import TextInput
from quorumvault.formats.csv import CsvTable, decode_cell, grammar
from quorumvault.formats.header import FORMS, INTEGER, MEASURE, require_header
from quorumvault.formats.json import check_json_text
from quorumvault.formats.jsonpath import PathStep, column_name, texts_in
from quorumvault.formats.lines import Lines, split_end

#: The number of rows to sample: enough for shares of 1 %, and read within a second.
SAMPLE_ROWS: Final = 10_000
#: The most places of JSON records to look at.
_PLACES: Final = 1000
#: The share of values that must have a form, or be distinct.
_MOST: Final = 0.8
_NEARLY_ALL: Final = 0.9
#: The least number of values for which it means something that they are distinct.
_ENOUGH: Final = 20

#: Words in column names: the identifiers of HIPAA's safe harbour (45 CFR 164.514), as tables name them.
_WORDS: Final = frozenset(
    {
        *("name", "names", "first", "last", "middle", "given", "family", "surname", "forename", "maiden", "username", "login"),
        *("birth", "born", "dob", "death", "deceased", "ssn", "passport", "mrn", "nhs", "nino", "tin", "license", "licence"),
        *("drivers", "member", "subscriber", "beneficiary", "insurance", "policy", "patient", "person", "subject", "user"),
        *("email", "mail", "phone", "tel", "telephone", "mobile", "cell", "fax", "website", "url", "ip", "mac", "device"),
        *(
            "address",
            "addr",
            "street",
            "city",
            "county",
            "zip",
            "postcode",
            "postal",
            "plz",
            "lat",
            "lon",
            "latitude",
            "longitude",
        ),
        *("iban", "account", "card", "vin", "plate", "serial", "photo", "biometric", "fingerprint"),
    }
)
#: The words with which a longer word may begin: BIRTHDATE, PATIENTID.
_BEGINNINGS: Final = tuple(word for word in _WORDS if len(word) >= 5)
_ID_WORDS: Final = frozenset({"id", "ids", "key", "number", "no", "nr", "num", "identifier", "uuid", "guid", "ref"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(slots=True)
class Sample:
    """A column: the texts of its first values. ``is_text``: all values are strings in the file."""

    texts: list[str] = field(default_factory=list, repr=False)
    is_text: bool = True

    def add(self, text: str, *, is_text: bool) -> None:
        self.texts.append(text)
        self.is_text = self.is_text and is_text


def reasons(name: str, sample: Sample) -> list[str]:
    """Returns the reasons why a column looks like an identifier; an empty list if it does not."""
    words = {word.lower() for word in _WORD.findall(name)}
    telling = sorted(word for word in words if word in _WORDS or word.startswith(_BEGINNINGS))
    found = [f"its name says {', '.join(telling)}"] if telling else []
    texts = sample.texts
    if not texts:
        return found
    found += [f"its values look like {form}" for form, pattern in FORMS.items() if _share(texts, pattern) >= _MOST]
    differ = len(set(texts)) / len(texts)
    is_measure = _share(texts, MEASURE) >= _MOST
    is_count = _share(texts, INTEGER) >= _MOST and not telling and not words & _ID_WORDS
    if len(texts) >= _ENOUGH and differ >= _NEARLY_ALL and not is_measure and not is_count:
        found.append(f"{differ:.0%} of its values differ")
    return found


def _share(texts: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(text) is not None for text in texts) / len(texts)


def sample(source: Source, job: Job) -> dict[str, Sample]:
    """Returns samples of a source's columns, or of the places in JSON records. ``job`` has the dialect. Raises read errors."""
    if source.format not in TEXT:
        return _sample_columnar(source)
    with source.path.open("rb") as stream:
        lines = Lines(_decoded(stream, source, job), str(source))
        return _sample_csv(lines, source, job) if source.format == "csv" else _sample_records(lines)


def _decoded(stream: BinaryIO, source: Source, job: Job) -> BinaryIO:
    return TextInput(stream, str(source), compression_of(source.path), job.dialect.encoding).stream


def _sample_csv(lines: Lines, source: Source, job: Job) -> dict[str, Sample]:
    quoting = job.dialect.quoting
    table = CsvTable(lines, grammar(job.dialect.delimiter or delimiter_of(source.path), quoting=quoting))
    require_header(table.names, str(source))
    samples = {name: Sample() for name in table.names}
    decode: Callable[[str], str | None] = decode_cell if quoting else str
    for row in islice(table.rows(), SAMPLE_ROWS):
        for name, raw in zip(table.names, row.raws, strict=False):
            if text := decode(raw):
                samples[name].add(text, is_text=True)
    return samples


class _Number(str):
    """The text of a number."""

    __slots__ = ()


_decode = json.JSONDecoder(parse_int=_Number, parse_float=_Number).decode


def _sample_records(lines: Lines) -> dict[str, Sample]:
    samples: dict[tuple[PathStep, ...], Sample] = {}
    _, line = lines.without_mark()
    for _ in range(SAMPLE_ROWS):
        text, _ = split_end(line)
        if text.strip(b" \t"):
            try:
                check_json_text(text, "the record")
            except Malformed as error:
                raise lines.error(error.detail) from None
            for place, value in texts_in(_decode(text.decode())):
                if value and (place in samples or len(samples) < _PLACES):
                    samples.setdefault(place, Sample()).add(value, is_text=type(value) is str)
        line = next(lines, b"")
        if not line:
            break
    return {column_name(place): found for place, found in samples.items()}


#: DuckDB's types whose values are not single texts.
_NESTED: Final = ("struct", "list", "array", "map", "union", "blob")


def _sample_columnar(source: Source) -> dict[str, Sample]:
    import duckdb

    from quorumvault.analytics.columns import quoted
    from quorumvault.files.columnar.duckdb import TableReader
    from quorumvault.files.columnar.engine import open_source

    with duckdb.connect() as con:
        reader = open_source(source, con)
        types: dict[str, Any] = {name: kind for name, kind in reader.types().items() if kind.id not in _NESTED}
        selected = ", ".join(f"cast({quoted(name)} as varchar)" for name in types) or "null"
        if isinstance(reader, TableReader):
            with reader.rows() as rows:
                found = con.sql(f"select {selected} from {rows} limit {SAMPLE_ROWS}").fetchall()  # noqa: S608 - quoted names
        else:
            path = glob.escape(str(source.path))
            found = con.execute(f"select {selected} from read_parquet(?) limit {SAMPLE_ROWS}", [path]).fetchall()  # noqa: S608
    samples = {name: Sample(is_text=kind.id in ("varchar", "enum")) for name, kind in types.items()}
    for row in found:
        for each, text in zip(samples.values(), row, strict=False):
            if text:
                each.add(text, is_text=True)
    return samples
