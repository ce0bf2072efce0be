"""A changed record keeps every other byte: blanks, and the spelling of numbers and names."""

import re
from unittest import mock

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quorumvault.formats import rewriting
from quorumvault.formats.fields import FieldSet
from quorumvault.formats.json import Container, Document, opened
from quorumvault.formats.json_lines import JsonLinesTable
from quorumvault.formats.rewriting import may_escape_names, rewritten
from tests.unit.formats.test_json import records, repeats_a_name
from tests.unit.formats.test_tables import lines_of

unrepeated = records.filter(lambda text: not repeats_a_name(text))
FIELDS = FieldSet.compile(["$.a", "$['a b']", "$.b[*].a", "$.b[*].b[0]", "$.é", "$['\\\\'].b", "$.b[*]['\"']"], "test")


@given(unrepeated, st.integers(1, 5))
@example('{"b" : [ {"\\u0061":1 ,"a b":[]}\n], "a":{"a":"\\\\"} }', 1)
@example('{"a":12,"b":[{"a":1}]}', 1)
def test_what_took_the_place_of_values_is_all_that_changed(text: str, piece: int) -> None:
    document = Document.parse(text.encode())
    slots = list(FIELDS.find(document))
    for count, slot in enumerate(slots):
        slot.replace(f"<{count}>" if count % 2 else msgspec.Raw(b"1"))
    with mock.patch.object(rewriting, "_PIECE_MEMBERS", piece):
        changed = b"".join(rewritten(document))
    assert [slot.path for slot in FIELDS.find(Document.parse(changed))] == [slot.path for slot in slots]
    again = Document.parse(changed)
    for now, before in zip(FIELDS.find(again), slots, strict=True):
        now.replace(msgspec.Raw(before.raw))
    assert b"".join(rewritten(again)) == text.encode()


@given(unrepeated)
@example('{"a":"x","b":[{"a":"y"}]}')
@example('{"b":[{"a":"x","c":"a"}],"\\"a":1}')
@example('{"x":{"a":1},"\\u0061":1}')
def test_a_line_of_json_lines_is_written_the_same_way_whether_names_tell_places_or_not(text: str) -> None:
    line = text.replace("\n", " ").replace("\r", " ")
    written = []
    for is_plain in (rewriting.plain_names, lambda text: False):
        with mock.patch("quorumvault.formats.json_lines.plain_names", is_plain):
            table = JsonLinesTable(lines_of(line.encode() + b"\r\n"))
            table.select_configured(FIELDS.paths)
            (row,) = table.rows()
            for cell in row.cells():
                cell.replace("token")
            written.append(row.render())
    assert written[0] == written[1]


@given(unrepeated.filter(lambda text: not may_escape_names(text.encode())))
def test_a_record_without_escaped_names_is_written_by_msgspec_as_it_was_but_for_blanks(text: str) -> None:
    document = Document.parse(text.encode())
    open_all(document.members)
    assert document.encode().decode() == re.sub(r'("(?:[^"\\]|\\.)*")|[ \t\n\r]', r"\1", text)


def open_all(container: Container) -> None:
    for key in list(container) if isinstance(container, dict) else range(len(container)):
        inner = opened(container, key)
        if inner is not None:
            open_all(inner)


def test_an_escape_in_a_value_is_none_in_a_name() -> None:
    assert not may_escape_names(b'{"a":"\\u00fc","b":["\\/"],"c":"\\u00fc\\":"}')
    assert may_escape_names(b'{"a":{"\\u00fc" :1}}')
    assert may_escape_names(b'{"\\"\\/":1}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"x\\u0079":1,"ssn":"AAA"}\n', b'{"x\\u0079":1,"ssn":"T"}\n'),
        (b'{"\\u0073sn": "A", "o": {"ssn":"A"}}\n', b'{"\\u0073sn": "T", "o": {"ssn":"A"}}\n'),
        (b'  {"id" : 1.10 ,\t"ssn":"A"} \r\n', b'  {"id" : 1.10 ,\t"ssn":"T"} \r\n'),
        (b'{"o":{"ssn":"A"},"ssn":"A","p":"ssn"}', b'{"o":{"ssn":"A"},"ssn":"T","p":"ssn"}'),
        (b'{"o":"\\"ssn","ssn":"A"}', b'{"o":"\\"ssn","ssn":"T"}'),
        (b'{"o":"ssn","ssn":{"ssn":1}}', b'{"o":"ssn","ssn":"T"}'),
    ],
)
def test_json_lines_keep_every_byte_but_the_value(text: bytes, expected: bytes) -> None:
    table = JsonLinesTable(lines_of(text))
    table.select_named(["ssn"])
    (row,) = table.rows()
    row.cells()[0].replace("T")
    assert row.render() == expected
