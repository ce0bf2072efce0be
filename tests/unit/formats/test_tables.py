"""Tables are read and written exactly, and what is no table is refused with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import ColumnError, InputError
from quorumvault.formats import lines as lines_module
from quorumvault.formats.csv import CsvTable, decode_cell, encode_cell
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.lines import Lines
from quorumvault.formats.table import Row, Table

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
#: Much of what CSV is about, often.
LIVELY = st.text(st.sampled_from('ab ,"\r\nä'), max_size=6)


def lines_of(content: bytes) -> Lines:
    return Lines(io.BytesIO(content), "file")


def csv_table(content: bytes, *columns: str) -> CsvTable:
    table = CsvTable(lines_of(content))
    table.select_named(columns)
    return table


def json_table(content: bytes, *columns: str) -> JsonLinesTable:
    table = JsonLinesTable(lines_of(content))
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
    """A cell as a file may have it: null, bare, or in quotes that it may not need."""
    text = draw(st.one_of(TEXT, LIVELY))
    return encode_cell(text, quoted=draw(st.booleans())) if draw(st.integers(0, 4)) else ""


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[list[list[str]], bytes]:
    """Raw cells, and a file of them."""
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
    table = csv_table(content)
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
    assert decode_cell(encode_cell(text, quoted=quoted)) == text


def test_a_null_and_an_empty_string_stay_apart() -> None:
    table = csv_table(b'a,b\n,""\n', "a", "b")
    (row,) = table.rows()
    assert [(cell.column, cell.value) for cell in row.cells()] == [(1, "")]
    row.cells()[0].replace("token")
    assert row.render() == b',"token"\n'


def test_a_replaced_cell_is_quoted_as_it_was_or_as_it_must_be() -> None:
    table = csv_table(b'a,b,c\nx,"y",z\n', "a", "b", "c")
    (row,) = table.rows()
    first, second, third = row.cells()
    first.replace("x,x")
    second.replace("yy")
    third.replace("")
    assert row.render() == b'"x,x","yy",""\n'


def test_a_value_of_another_type_is_written_as_text() -> None:
    table = csv_table(b'a,b,c\n1,2,"3"\n', "a", "b", "c")
    (row,) = table.rows()
    for cell, json in zip(row.cells(), (b"42", b"true", b'"\\u00e4"'), strict=True):
        cell.replace(msgspec.Raw(json))
    assert row.render() == '42,true,"ä"\n'.encode()


def test_a_cell_can_become_null() -> None:
    table = csv_table(b'a\n"x"\n', "a")
    (row,) = table.rows()
    row.cells()[0].replace(None)
    assert row.render() == b"\n"


def test_empty_lines_pass_through() -> None:
    content = b"a,b\n\n1,2\r\n\r\n3,4\n\n"
    assert written(csv_table(content, "a"), upper) == content
    assert [row.is_record for row in csv_table(content, "a").rows()] == [False, True, False, True, False]


def test_a_header_alone_is_a_table_without_rows() -> None:
    assert written(csv_table(b"a,b\r\n", "b")) == b"a,b\r\n"
    assert written(csv_table(b"a,b", "b")) == b"a,b"


def test_rows_tell_the_line_they_begin_in() -> None:
    table = csv_table(b'a,b\n1,"x\n\ny"\n2,z\n', "a")
    assert [row.line for row in table.rows()] == [2, 5]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "column names"),
        (b"\n1,2\n", 1, "column names"),
        (b"a,b\n1,2\n1\n", 3, "1 cells, and the header has 2"),
        (b"a,b\n1,2,3\n", 2, "3 cells, and the header has 2"),
        (b'a,b\n1,5" pipe\n', 2, "quote"),
        (b'a,b\n1,"x"y\n', 2, "quote"),
        (b'a,b\n1, "x"\n', 2, "quote"),
        (b'a,b\n1,x"y"z\n', 2, "quote"),
        (b'a,b\n1,"x\n2,y\n', 2, "does not end"),
        (b"a,b\n1,2\r3,4\n", 2, "carriage return"),
        (b"a\rb\n", 1, "carriage return"),
        (b"a,b\n1,\0\n", 2, "NUL"),
        (b"a,b\n1,2\n\xff,2\n", 3, "not UTF-8, at byte 1"),
        (b'a,b\n1,"\n\xe4"\n', 3, "not UTF-8, at byte 1"),
        ("a,b\n".encode("utf-16"), 1, "NUL"),
    ],
)
def test_what_is_no_csv_is_refused_with_its_line(content: bytes, line: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        written(csv_table(content))
    assert caught.value.line == line
    assert words in str(caught.value)
    assert "pipe" not in str(caught.value)


def test_no_line_and_no_row_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_BYTES", 100)
    monkeypatch.setattr("quorumvault.formats.csv.MAX_BYTES", 100)
    for content in (b"a\n" + b"x" * 200, b'a\n"' + b"x\n" * 200):
        with pytest.raises(InputError, match="line 2"):
            written(csv_table(content))


def test_columns_of_csv() -> None:
    content = b'\xef\xbb\xbf"first, last",ssn,ssn,zip\n'
    assert csv_table(content, "zip", "first, last", "zip").columns == ("zip", "first, last")
    with pytest.raises(ColumnError, match="no column 'SSN', 'age'; its columns: 'first, last', 'ssn', 'ssn', 'zip'"):
        csv_table(content, "SSN", "zip", "age")
    with pytest.raises(ColumnError, match="more than one column 'ssn'"):
        csv_table(content, "ssn")


def test_configured_columns_of_csv() -> None:
    table = CsvTable(lines_of(b"ssn,given name,phone\n"))
    table.select_configured(["$['given name']", "$.contacts[*].phone", "$.mrn", "$.ssn"])
    assert table.columns == ("given name", "ssn")
    with pytest.raises(ColumnError, match="none of the configured fields"):
        table.select_configured(["$.SSN", "$.a.phone"])


JSON_LINES = b'{"ssn": "123", "lab": 1.10, "n": [1,{"x":1e400}]}\r\n\n  {"ssn":null,"lab":"b"}\n{"lab": 2}'


def test_json_lines_keep_the_spelling_of_what_is_not_replaced() -> None:
    assert written(json_table(JSON_LINES, "ssn"), upper) == (
        b'{"ssn":"123","lab":1.10,"n":[1,{"x":1e400}]}\r\n\n{"ssn":null,"lab":"b"}\n{"lab":2}'
    )
    assert [row.is_record for row in json_table(JSON_LINES, "ssn").rows()] == [True, False, True, True]


def test_json_lines_have_types() -> None:
    table = json_table(b'{"a": 1, "b": true, "c": "\\u00e4", "d": null}\n', "a", "b", "c", "d")
    (row,) = table.rows()
    assert [(cell.column, cell.value) for cell in row.cells()] == [(0, msgspec.Raw(b"1")), (1, msgspec.Raw(b"true")), (2, "ä")]
    for cell, value in zip(row.cells(), ("token", msgspec.Raw(b"12345678901234567890123"), None), strict=True):
        cell.replace(value)
    assert row.render() == b'{"a":"token","b":12345678901234567890123,"c":null,"d":null}\n'


def test_json_columns_are_names_or_paths() -> None:
    content = b'{"a.b": "x", "p": {"q": ["y", "z"]}}\n'
    table = json_table(content, "a.b", "$.p.q[*]")
    assert table.columns == ("a.b", "$.p.q[*]")
    assert written(table, upper) == b'{"a.b":"X","p":{"q":["Y","Z"]}}\n'
    with pytest.raises(ColumnError, match="character"):
        json_table(content, "$..q")


def test_a_record_with_one_name_twice_is_refused_and_nothing_of_it_shown() -> None:
    with pytest.raises(InputError, match="line 2: an object of the record has one name twice, at byte 16") as refused:
        written(json_table(b'{"ssn":"a"}\n{"ssn":"secret","ssn":null}\n', "ssn"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        (b'{"a": 1}\n{"a": 2}\n', ("a", "b"), "no record of file has b"),
        (b'{"a": 1}\n', ("$.p.q",), "has \\$.p.q"),
    ],
)
def test_a_named_member_that_no_record_has_is_a_mistake(content: bytes, columns: Sequence[str], words: str) -> None:
    with pytest.raises(ColumnError, match=words):
        written(json_table(content, *columns))


def test_of_the_configured_fields_one_has_to_be_there() -> None:
    for content, configured, fits in (
        (b'{"a": 1}\n', ["$.a", "$.b"], True),
        (b'{"a": null}\n', ["$.a"], True),
        (b"", ["$.a"], True),
        (b'{"c": 1}\n', ["$.a", "$.b"], False),
    ):
        table = JsonLinesTable(lines_of(content))
        table.select_configured(configured)
        if fits:
            written(table)
        else:
            with pytest.raises(ColumnError, match="any of the configured fields"):
                written(table)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"a": 1}\n[1]\n', 2),
        (b'{"a": 1}\n{"a": \n', 2),
        (b'{"a": "\xff"}\n', 1),
        (b'\n\n{"a": ' + b"[" * 100 + b"]" * 100 + b"}\n", 3),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_line(content: bytes, line: int) -> None:
    with pytest.raises(InputError) as caught:
        written(json_table(content, "a"))
    assert caught.value.line == line


def test_a_byte_order_mark_before_json_lines_is_kept() -> None:
    content = b'\xef\xbb\xbf{"a":"x"}\n'
    assert written(json_table(content, "a"), upper) == b'\xef\xbb\xbf{"a":"X"}\n'
