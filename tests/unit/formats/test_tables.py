"""Tables are read and written exactly, and input that is not a table is refused with its line number."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import ColumnError, InputError
from quorumvault.formats import lines as lines_module
from quorumvault.formats.csv import COMMAS, CsvTable, decode_cell
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.lines import Lines
from quorumvault.formats.table import Row, Table

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
#: Text in which the special characters of CSV are frequent.
LIVELY = st.text(st.sampled_from('ab ,"\r\nä'), max_size=6)


def lines_of(content: bytes) -> Lines:
    return Lines(io.BytesIO(content), "file")


def csv_table(content: bytes, *columns: str, configured: Sequence[str] = ()) -> Table:
    return selected(CsvTable(lines_of(content)), columns, configured)


def json_table(content: bytes, *columns: str, configured: Sequence[str] = ()) -> Table:
    return selected(JsonLinesTable(lines_of(content)), columns, configured)


def selected(table: Table, columns: Sequence[str], configured: Sequence[str]) -> Table:
    if configured:
        table.select_configured(configured)
    else:
        table.select_named(columns)
    return table


def written(table: Table, change: Callable[[Row], None] = lambda row: None) -> bytes:
    parts = [table.header()]
    for row in table.rows():
        change(row)
        parts.append(row.render())
    table.check_seen()
    return b"".join(parts)


def upper(row: Row) -> None:
    for cell in row.cells():
        if isinstance(cell.value, str):
            cell.replace(cell.value.upper())


@st.composite
def raw_cells(draw: st.DrawFn) -> str:
    """A cell as a file may spell it: null, bare, or in quotes that it may not need."""
    text = draw(st.one_of(TEXT, LIVELY))
    return COMMAS.encode(text, quoted=draw(st.booleans())) if draw(st.integers(0, 4)) else ""


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[list[list[str]], bytes]:
    """Rows of raw cells, and a file made of them."""
    width = draw(st.integers(1, 4))
    body = draw(st.lists(st.lists(raw_cells(), min_size=width, max_size=width), max_size=6))
    rows = [[f"c{number}" for number in range(width)], *body]
    ends = draw(st.lists(st.sampled_from(["\n", "\r\n"]), min_size=len(rows), max_size=len(rows)))
    mark = draw(st.sampled_from(["", "\ufeff"]))
    text = "".join(",".join(row) + end for row, end in zip(rows, ends, strict=True))
    if draw(st.booleans()):
        text = text.removesuffix("\n").removesuffix("\r")
    return rows, (mark + text).encode()


@given(csv_files())
def test_csv_that_nobody_changes_is_the_same_bytes(file: tuple[list[list[str]], bytes]) -> None:
    rows, content = file
    table = csv_table(content, *rows[0])
    assert written(table) == content


@given(csv_files())
def test_csv_cells_are_what_the_csv_module_reads(file: tuple[list[list[str]], bytes]) -> None:
    _, content = file
    expected = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    table = CsvTable(lines_of(content))
    decoded = [[decode_cell(raw) or "" for raw in row.raws] for row in table.rows()]
    assert decoded == [row or [""] for row in expected[1:]]


@given(csv_files(), st.data())
def test_csv_comes_back_byte_for_byte_after_tokens_took_the_place_of_values(
    file: tuple[list[list[str]], bytes], data: st.DataObject
) -> None:
    rows, content = file
    columns = data.draw(st.lists(st.sampled_from(rows[0]), unique=True))
    tokens: dict[str, str] = {}

    def tokenize(row: Row) -> None:
        for cell in row.cells():
            cell.replace(tokens.setdefault(str(cell.value), f"qv_1_{len(tokens)}"))

    values: dict[str, str] = {}

    def detokenize(row: Row) -> None:
        for cell in row.cells():
            cell.replace(values[str(cell.value)])

    tokenized = written(csv_table(content, *columns), tokenize)
    values = {token: value for value, token in tokens.items()}
    assert written(csv_table(tokenized, *columns), detokenize) == content


@given(st.one_of(TEXT, LIVELY), st.booleans())
def test_a_cell_is_read_as_it_was_written(text: str, quoted: bool) -> None:
    assert decode_cell(COMMAS.encode(text, quoted=quoted)) == text


RAW = msgspec.Raw


@pytest.mark.parametrize(
    ("table", "before", "after", "text"),
    [
        # A null and an empty string stay distinct.
        (csv_table(b'a,b\n,""\n', "a", "b"), {1: ""}, ["token"], b',"token"\n'),
        # A cell keeps its quotes, and gets quotes where it needs them.
        (csv_table(b'a,b,c\nx,"y",z\n', *"abc"), {0: "x", 1: "y", 2: "z"}, ["x,x", "yy", ""], b'"x,x","yy",""\n'),
        # A value of another type is written as text.
        (
            csv_table(b'a,b,c\n1,2,"3"\n', *"abc"),
            {0: "1", 1: "2", 2: "3"},
            [RAW(b"42"), RAW(b"true"), RAW(b'"\\u00e4"')],
            '42,true,"ä"\n'.encode(),
        ),
        (csv_table(b'a\n"x"\n', "a"), {0: "x"}, [None], b"\n"),
        # JSON has types.
        (
            json_table(b'{"a": 1, "b": true, "c": "\\u00e4", "d": null}\n', *"abcd"),
            {0: RAW(b"1"), 1: RAW(b"true"), 2: "ä"},
            ["token", RAW(b"12345678901234567890123"), None],
            b'{"a": "token", "b": 12345678901234567890123, "c": null, "d": null}\n',
        ),
    ],
)
def test_what_cells_have_and_how_another_value_is_written(
    table: Table, before: dict[int, object], after: list[Any], text: bytes
) -> None:
    (row,) = table.rows()
    assert {cell.column: cell.value for cell in row.cells()} == before
    for cell, value in zip(row.cells(), after, strict=True):
        cell.replace(value)
    assert row.render() == text


LINES = b"a,b\n\n1,x\r\n\r\n3,4\n\n"
JSON_LINES = b'{"ssn": "a", "lab": 1.10, "n": [1,{"x":1e400}]}\r\n\n  {"ssn":null,"lab":"b"}\n{"lab": 2}'
JSON_WRITTEN = JSON_LINES.replace(b'"a"', b'"A"')


@pytest.mark.parametrize(
    ("make", "content", "columns", "upper_case", "records"),
    [
        # Empty lines pass through, and a header alone is a table without rows.
        (csv_table, LINES, ["b"], LINES.replace(b"x", b"X"), [False, True, False, True, False]),
        (csv_table, b"a,b\r\n", ["b"], b"a,b\r\n", []),
        (csv_table, b"a,b", ["b"], b"a,b", []),
        # Values that are not replaced keep their spelling, and a byte order mark stays in place.
        (json_table, JSON_LINES, ["ssn"], JSON_WRITTEN, [True, False, True, True]),
        (json_table, b'\xef\xbb\xbf{"a":"x"}\n', ["a"], b'\xef\xbb\xbf{"a":"X"}\n', [True]),
        # JSON columns are names or paths.
        (
            json_table,
            b'{"a.b": "x", "p": {"q": ["y", "z"]}}\n',
            ["a.b", "$.p.q[*]"],
            b'{"a.b": "X", "p": {"q": ["Y", "Z"]}}\n',
            [True],
        ),
    ],
)
def test_all_but_the_cells_is_written_as_it_is(
    make: Callable[..., Table], content: bytes, columns: list[str], upper_case: bytes, records: list[bool]
) -> None:
    table = make(content, *columns)
    assert table.columns == tuple(columns)
    assert written(table, upper) == upper_case
    assert [row.is_record for row in make(content, *columns).rows()] == records


def test_rows_tell_the_line_they_begin_in() -> None:
    table = csv_table(b'a,b\n1,"x\n\ny"\n2,z\n', "a")
    assert [row.line for row in table.rows()] == [2, 5]


@pytest.mark.parametrize(
    ("make", "content", "line", "words"),
    [
        (csv_table, b"", 1, "column names"),
        (csv_table, b"\n1,2\n", 1, "column names"),
        (csv_table, b"a,b\n1,2\n1\n", 3, "1 cells, and the header has 2"),
        (csv_table, b"a,b\n1,2,3\n", 2, "3 cells, and the header has 2"),
        (csv_table, b'a,b\n1,5" secret\n', 2, "quote"),
        (csv_table, b'a,b\n1,"x"y\n', 2, "quote"),
        (csv_table, b'a,b\n1, "x"\n', 2, "quote"),
        (csv_table, b'a,b\n1,x"y"z\n', 2, "quote"),
        (csv_table, b'a,b\n1,"x\n2,y\n', 2, "does not end"),
        (csv_table, b"a,b\n1,2\r3,4\n", 2, "carriage return"),
        (csv_table, b"a\rb\n", 1, "carriage return"),
        (csv_table, b"a,b\n1,\0\n", 2, "NUL"),
        (csv_table, b"a,b\n1,2\n\xff,2\n", 3, "not UTF-8, at byte 1"),
        (csv_table, b'a,b\n1,"\n\xe4"\n', 3, "not UTF-8, at byte 1"),
        (csv_table, "a,b\n".encode("utf-16"), 1, "NUL"),
        (json_table, b'{"a": 1}\n[1]\n', 2, ""),
        (json_table, b'{"a": 1}\n{"a": \n', 2, ""),
        (json_table, b'{"a": "\xff"}\n', 1, ""),
        (json_table, b'\n\n{"a": ' + b"[" * 100 + b"]" * 100 + b"}\n", 3, ""),
        (json_table, b'{"a":"b"}\n{"a":"secret","a":null}\n', 2, "an object of the record has one name twice, at byte 14"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(make: Callable[..., Table], content: bytes, line: int, words: str) -> None:
    with pytest.raises(InputError, match=f"line {line}: ") as caught:
        written(make(content))
    assert caught.value.line == line
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_line_and_no_row_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_BYTES", 100)
    monkeypatch.setattr("quorumvault.formats.csv.MAX_BYTES", 100)
    for content in (b"a\n" + b"x" * 200, b'a\n"' + b"x\n" * 200):
        with pytest.raises(InputError, match="line 2"):
            written(csv_table(content))


NAMES = b'\xef\xbb\xbf"first, last",ssn,ssn,zip\n'


@pytest.mark.parametrize(
    ("make", "content", "options", "columns"),
    [
        (csv_table, NAMES, ["zip", "first, last", "zip"], ("zip", "first, last")),
        (csv_table, NAMES, ["SSN", "zip", "age"], "no column 'SSN', 'age'; its columns: 'first, last', 'ssn', 'ssn', 'zip'"),
        (csv_table, NAMES, ["ssn"], "more than one column 'ssn'"),
        (
            csv_table,
            b"ssn,given name,phone\n",
            {"configured": ["$['given name']", "$.contacts[*].phone", "$.mrn", "$.ssn"]},
            ("given name", "ssn"),
        ),
        (csv_table, b"ssn,given name,phone\n", {"configured": ["$.SSN", "$.a.phone"]}, "none of the configured fields"),
        # Naming a member that no record has is an error.
        (json_table, b'{"a": 1}\n{"a": 2}\n', ["a", "b"], "no record of file has b"),
        (json_table, b'{"a": 1}\n', ["$.p.q"], "has \\$.p.q"),
        (json_table, b'{"a": 1}\n', ["$..q"], "character"),
        # At least one of the configured fields must be there.
        (json_table, b'{"a": 1}\n', {"configured": ["$.a", "$.b"]}, ("$.a", "$.b")),
        (json_table, b'{"a": null}\n', {"configured": ["$.a"]}, ("$.a",)),
        (json_table, b"", {"configured": ["$.a"]}, ("$.a",)),
        (json_table, b'{"c": 1}\n', {"configured": ["$.a", "$.b"]}, "any of the configured fields"),
    ],
)
def test_which_columns_a_table_has(
    make: Callable[..., Table], content: bytes, options: Any, columns: tuple[str, ...] | str
) -> None:
    named, configured = (options, {}) if isinstance(options, list) else ((), options)
    if isinstance(columns, str):
        with pytest.raises(ColumnError, match=columns):
            written(make(content, *named, **configured))
    else:
        table = make(content, *named, **configured)
        written(table)
        assert table.columns == columns
