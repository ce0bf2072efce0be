"""Malformed Arrow streams, one fault each; after all of them, pyarrow's memory is unharmed."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from quorumvault.config.limits import Limits
from quorumvault.errors import Invalid, Malformed, RequestError, TooManyItems
from quorumvault.server.http.arrow_stream import read_texts
from tests import ROOT
from tests.fuzz import arrow
from tests.rigs.arrow import (
    BINARY,
    CONTINUATION,
    END,
    INT,
    LARGE_UTF8,
    LARGE_VIEWS,
    NULL,
    UTF8_VIEW,
    V3,
    V4,
    Message,
    Rows,
    Structs,
    Table,
    Tables,
    Text,
    batch,
    bits,
    dictionary,
    encoding,
    field_of,
    indices,
    message,
    offsets,
    padded,
    schema,
    stream,
    texts,
)

LIMITS = Limits()
REGRESSIONS = ROOT / "tests" / "fuzz" / "regressions" / "arrow"
A_B = texts(b"a", b"b")
CODED = schema(field_of(encoding=encoding()))
XY = dictionary(texts(b"x", b"y"))
MOST = 2**63 - 1


def view(length: int, buffer: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<i4sii", length, b"aaaa", buffer, offset)


def views(*each: bytes, valid: tuple[bool, ...], data: bytes = b"a" * 20) -> bytes:
    rows = Rows([bits(*valid), b"".join(each), data], len(each), len(valid) - sum(valid), variadic=Structs([(1, 0)]))
    return stream(schema(field_of(kind=UTF8_VIEW)), batch(rows))


def with_rows(rows: Rows, **more: Any) -> bytes:
    return stream(schema(), batch(rows, **more))


def buffers(
    *, validity: bytes = b"", ends: bytes = offsets(0, 1, 2), text: bytes = b"ab", rows: int = 2, nulls: int = 0
) -> bytes:
    return with_rows(Rows([validity, ends, text], rows, nulls))


def coded(*messages: Message, bits: int | None = 32, signed: bool = True) -> bytes:
    return stream(schema(field_of(encoding=encoding(bits, signed=signed))), *messages)


def at(body: bytes, place: int, new: bytes) -> bytes:
    return body[:place] + new + body[place + len(new) :]


def unmarked(message: Message) -> Message:
    """The message as it was written before 2019, without a continuation marker."""
    return replace(message, prefix=b"", metadata=message.metadata + bytes(4))


#: Faults in buffers and offsets.
BAD_BUFFERS = {
    "a negative offset": buffers(ends=offsets(-1, 1, 2)),
    "a negative offset of a null row": buffers(validity=bits(True, False), nulls=1, ends=offsets(0, 1, -(2**31))),
    "offsets that go back in a null row": buffers(validity=bits(False, True), nulls=1, ends=offsets(2, 1, 2)),
    "offsets that go back and forth": buffers(ends=offsets(0, 2, 1, 2), rows=3),
    "an offset beyond the text": buffers(ends=offsets(0, 1, 3), text=b"ab"),
    "the largest offset": buffers(ends=offsets(0, 1, 2**31 - 1)),
    "an offset beyond the text, in a null row in the middle": buffers(
        validity=bits(True, False, True), nulls=1, ends=offsets(0, 2**30, 2, 2), rows=3
    ),
    "fewer offsets than rows": buffers(ends=offsets(0, 1)),
    "no offsets": buffers(ends=b""),
    "large offsets that are small": stream(schema(field_of(kind=LARGE_UTF8)), batch(A_B)),
    "the largest large offset": stream(
        schema(field_of(kind=LARGE_UTF8)), batch(Rows([b"", offsets(0, MOST, large=True), b"a"], 1))
    ),
    "a negative large offset": stream(
        schema(field_of(kind=LARGE_UTF8)), batch(Rows([b"", offsets(-MOST, 0, large=True), b"a"], 1))
    ),
    "text that is not UTF-8": buffers(text=b"a\xff"),
    "text that ends inside a character": buffers(text=b"a\xc3"),
    "a surrogate": buffers(text=b"\xed\xa0\x80", ends=offsets(0, 3, 3)),
    "a null row that is not UTF-8": buffers(validity=bits(True, False), nulls=1, text=b"a\xff"),
    "an offset inside a character": buffers(text="é".encode(), ends=offsets(0, 1, 2)),
    "an offset inside a character, in null rows": buffers(
        text="é".encode(), ends=offsets(0, 1, 2), validity=bits(False, False), nulls=2
    ),
    "no validity": buffers(nulls=1),
    "a validity that is too short": with_rows(Rows([b"\xff", offsets(*[0] * 10), b""], 9, 0)),
    "fewer nulls than announced": buffers(validity=bits(True, True), nulls=1),
    "more nulls than announced": buffers(validity=bits(False, False), nulls=1),
    "nulls though none were announced": buffers(validity=bits(False, True), nulls=0),
    "nulls where the schema has none": stream(schema(field_of(nullable=False)), batch(texts(b"a", None))),
    "more nulls than rows": buffers(validity=bits(False, False), nulls=3),
    "a negative number of nulls": buffers(validity=bits(False, False), nulls=-2),
}
#: Faults in the metadata of a batch.
BAD_BATCHES = {
    "a buffer before the message's": with_rows(replace(A_B, places={1: (-8, 12)})),
    "a buffer beyond the message's": with_rows(replace(A_B, places={1: (16, 12)})),
    "a buffer that ends beyond": with_rows(replace(A_B, places={2: (16, 9)})),
    "a buffer of negative length": with_rows(replace(A_B, places={2: (16, -1)})),
    "a buffer whose end overflows": with_rows(replace(A_B, places={2: (8, MOST)})),
    "a buffer at the largest place": with_rows(replace(A_B, places={2: (MOST - 7, 8)})),
    "a buffer that is not aligned": with_rows(replace(A_B, places={2: (17, 2)})),
    "more rows than offsets": with_rows(replace(A_B, rows=9000)),
    "a negative number of rows": with_rows(replace(A_B, rows=-1)),
    "another number of rows in its column": with_rows(replace(A_B, length=1)),
    "two nodes": with_rows(replace(A_B, nodes=2)),
    "no node": with_rows(replace(A_B, nodes=0)),
    "four thousand million nodes": with_rows(replace(A_B, nodes=2**32 - 1)),
    "two buffers": with_rows(Rows(A_B.buffers[:2], 2)),
    "four buffers": with_rows(Rows([*A_B.buffers, b"more"], 2)),
    "three buffers, it says": with_rows(Rows(A_B.buffers[:2], 2, count=3)),
    "variadic buffers": with_rows(replace(A_B, variadic=Structs([(1, 0)]))),
    "a body that is longer than it is": with_rows(A_B, size=1 << 20),
    "a body of the largest length": with_rows(A_B, size=MOST),
    "a body of negative length": with_rows(A_B, size=-8),
    "no header": stream(schema(), message(3, None)),
    "an empty header": stream(schema(), message(3, Table([]))),
    "a header that is a tensor": stream(schema(), message(4, A_B.header(), A_B.data())),
    "a header of no type": stream(schema(), message(0, A_B.header(), A_B.data())),
    "a second schema": stream(schema(), schema(), batch(A_B)),
    "a dictionary that nobody refers to": stream(schema(), XY, batch(A_B)),
}
BAD_DICTIONARIES = {
    "an index beyond the dictionary": coded(XY, batch(indices(0, 2))),
    "a negative index": coded(XY, batch(indices(0, -1))),
    "the largest index": coded(XY, batch(indices(2**64 - 1, code="Q")), bits=64, signed=False),
    "an index, and no dictionary": coded(batch(indices(0))),
    "an index into an empty dictionary": coded(dictionary(texts()), batch(indices(0))),
    "an index of the dictionary before": coded(XY, dictionary(texts(b"z")), batch(indices(1))),
    "an index of what is added later": coded(XY, batch(indices(2)), dictionary(texts(b"z"), delta=True)),
    "something added to nothing": coded(dictionary(texts(b"x"), delta=True), batch(indices(0))),
    "another dictionary": coded(dictionary(texts(b"x"), key=1), batch(indices(0))),
    "indices that are too short": coded(XY, batch(replace(indices(0, 1), rows=3))),
    "indices with too short a validity": coded(XY, batch(Rows([b"\xff", bytes(36)], 9, 0))),
    "text where indices should be": coded(XY, batch(A_B)),
    "a dictionary of indices": coded(dictionary(indices(0)), batch(indices(0))),
    "entries that go back": coded(dictionary(Rows([b"", offsets(0, 2, 1), b"ab"], 2)), batch(indices(0))),
    "entries that are null and go back": coded(
        dictionary(Rows([bits(True, False), offsets(0, 2, -7), b"ab"], 2, 1)), batch(indices(0))
    ),
    "entries that nobody has, and are not UTF-8": coded(dictionary(texts(b"x", b"\xff")), batch(indices(0))),
    "more entries than bytes": coded(dictionary(replace(texts(b"x"), rows=MOST)), batch(indices(0))),
    "a dictionary after the batches that is broken": coded(XY, batch(indices(0)), dictionary(texts(b"\xff"))),
    "indices of 24 bits": coded(XY, batch(indices(0)), bits=24),
    "indices without a type": coded(XY, batch(indices(0)), bits=None),
    "indices of -8 bits": coded(XY, batch(indices(0)), bits=-8),
    "a dictionary of numbers": stream(schema(field_of(kind=INT, encoding=encoding())), XY, batch(indices(0))),
}
BAD_SCHEMAS = {
    "views, a null one of negative length": views(view(20), view(-5), valid=(True, False)),
    "views, a null one outside": views(view(20), view(64, offset=4096), valid=(True, False)),
    "views that are good": views(view(20), valid=(True,)),
    "a list of views": stream(schema(field_of(kind=LARGE_VIEWS)), batch(A_B)),
    "binary": stream(schema(field_of(kind=BINARY)), batch(A_B)),
    "numbers": stream(schema(field_of(kind=INT)), batch(indices(1))),
    "nulls alone": stream(schema(field_of(kind=NULL)), batch(Rows([], 1, 1))),
    "no type": stream(schema(field_of(kind=0)), batch(A_B)),
    "a type from the future": stream(schema(field_of(kind=255)), batch(A_B)),
    "text with a column inside": stream(schema(field_of(children=Tables([field_of()]))), batch(A_B)),
    "text with a thousand million columns inside": stream(schema(field_of(children=Tables([], 10**9))), batch(A_B)),
    "big-endian": stream(schema(endianness=1), batch(A_B)),
    "version 3": stream(schema(version=V3), batch(A_B)),
    "version -1": stream(schema(version=-1), batch(A_B)),
    "a schema with buffers": stream(message(1, Table([None, Tables([field_of()])]), bytes(8)), batch(A_B)),
    "no schema": stream(batch(A_B)),
    "a dictionary first": stream(XY, CODED, batch(indices(0))),
}
GOOD = stream(schema(), batch(A_B))
BAD_FRAMES = {
    "nothing": b"",
    "an end alone": END,
    "zeros": bytes(64),
    "JSON": b'{"values": []}',
    "the format of files": b"ARROW1\0\0" + GOOD,
    "a message cut off": GOOD[:-20],
    "a message cut off in its length": stream(schema(), end=CONTINUATION + b"\x10\0"),
    "half a mark": stream(schema(), end=CONTINUATION[:2]),
    "something after the end": GOOD + bytes(8),
    "two streams": GOOD + GOOD,
    "metadata of negative length": stream(replace(schema(), length=-8)),
    "metadata of the largest length": stream(replace(schema(), length=2**31 - 1)),
    "metadata without anything": stream(replace(schema(), length=4)),
    "metadata that are not aligned": stream(replace(schema(), metadata=schema().metadata + bytes(4)), batch(A_B)),
    "a root outside": at(GOOD, 8, b"\xff\xff\xff\xff"),
    "a root that is the last byte": at(GOOD, 8, struct.pack("<I", len(schema().metadata) - 1)),
    "a table whose fields are before the metadata": at(GOOD, 8 + 24, struct.pack("<i", 2**31 - 1)),
    "a table whose fields are behind the metadata": at(GOOD, 8 + 24, struct.pack("<i", -(2**31))),
    "a name outside": stream(Message(padded(schema().metadata.replace(b"\x05\0\0\0value", b"\xff\xff\xff\xffvalue")[:-8]))),
}
BAD = {**BAD_BUFFERS, **BAD_BATCHES, **BAD_DICTIONARIES, **BAD_SCHEMAS, **BAD_FRAMES}
#: Streams for which the contract has other errors.
REFUSED = {
    "no columns": (Invalid, stream(schema(count=0), batch(Rows([], 0)))),
    "two columns": (Invalid, stream(schema(field_of(), field_of(b"more")), batch(A_B))),
    "more columns than bytes": (Invalid, stream(schema(count=2**32 - 1), batch(A_B))),
    "another name": (Invalid, stream(schema(field_of(b"values")), batch(A_B))),
    "no name": (Invalid, stream(schema(field_of(b"")), batch(A_B))),
    "compression": (Invalid, with_rows(replace(A_B, compression=Table([])))),
    "a compressed dictionary": (Invalid, coded(dictionary(replace(A_B, compression=Table([]))), batch(indices(0)))),
    "too many rows": (TooManyItems, with_rows(Rows([b"", offsets(*[0] * 10_002), b""], 10_001))),
    "too many rows, it says": (TooManyItems, with_rows(replace(A_B, rows=MOST, length=MOST))),
    "too many rows in all": (TooManyItems, stream(schema(), *[batch(Rows([b"", offsets(*[0] * 5002), b""], 5001))] * 2)),
    "too many batches": (TooManyItems, stream(schema(), *[batch(texts())] * 1001)),
    "too many dictionaries": (TooManyItems, coded(*[XY] * 1001)),
}
TAKEN: dict[str, tuple[bytes, list[str | None]]] = {
    "text": (GOOD, ["a", "b"]),
    "no end": (stream(schema(), batch(A_B), end=b""), ["a", "b"]),
    "no mark before lengths": (stream(unmarked(schema()), unmarked(batch(A_B)), end=bytes(4)), ["a", "b"]),
    "version 4": (stream(schema(version=V4), batch(A_B, version=V4)), ["a", "b"]),
    "no batches": (stream(schema()), []),
    "as many batches as there may be": (stream(schema(), *[batch(texts())] * 1000), []),
    "no rows": (stream(schema(), batch(texts())), []),
    "no rows and no buffers": (with_rows(Rows([b"", b"", b""], 0)), []),
    "no rows and a validity": (with_rows(Rows([b"\xff", offsets(0), b""], 0)), []),
    "a validity without nulls": (buffers(validity=b"\xff"), ["a", "b"]),
    "nulls that nobody counted": (buffers(validity=bits(True, False), nulls=-1), ["a", None]),
    "a null row that has text": (buffers(validity=bits(True, False), nulls=1), ["a", None]),
    "text before the first and after the last offset": (buffers(ends=offsets(1, 2, 3), text=b"\xffab\xff"), ["a", "b"]),
    "rows without nulls by schema": (stream(schema(field_of(nullable=False)), batch(A_B)), ["a", "b"]),
    "any index in a null row": (coded(XY, batch(indices(-1, 99, 1, valid=(False, False, True)))), [None, None, "y"]),
    "a null entry": (coded(dictionary(texts(b"x", None)), batch(indices(1, 0))), [None, "x"]),
    "entries that repeat": (coded(dictionary(texts(b"x", b"x", b"y")), batch(indices(1, 0, 2))), ["x", "x", "y"]),
    "a dictionary that grows": (
        coded(XY, batch(indices(1)), dictionary(texts(b"z"), delta=True), batch(indices(2, 0))),
        ["y", "z", "x"],
    ),
    "a dictionary that is replaced": (coded(XY, batch(indices(1)), dictionary(texts(b"z")), batch(indices(0))), ["y", "z"]),
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_stream_with_one_fault_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_texts(body, "value", LIMITS)


@pytest.mark.parametrize(("refusal", "body"), REFUSED.values(), ids=REFUSED)
def test_a_stream_that_is_refused_for_something_else(refusal: type[RequestError], body: bytes) -> None:
    with pytest.raises(refusal):
        read_texts(body, "value", LIMITS)


@pytest.mark.parametrize(("body", "rows"), TAKEN.values(), ids=TAKEN)
def test_a_stream_that_is_unusual_and_good(body: bytes, rows: list[str | None]) -> None:
    assert arrow.rows_of(read_texts(body, "value", LIMITS)) == rows
    table = pa.ipc.open_stream(body).read_all()
    assert table.column(0).to_pylist() == rows, "and to pyarrow it is the same"


def test_a_dictionary_is_not_missed_by_rows_that_are_null() -> None:
    assert arrow.rows_of(read_texts(coded(batch(indices(7, valid=(False,)))), "value", LIMITS)) == [None]


def test_no_refusal_repeats_the_body() -> None:
    secret = b"123-45-6789"
    for bad in (texts(secret + b"\xff"), Rows([b"", offsets(0, 99), secret], 1)):
        with pytest.raises(Malformed) as caught:
            read_texts(with_rows(bad), "value", LIMITS)
        assert secret.decode() not in str(caught.value)


def test_what_is_not_asked_about_is_not_taken_out() -> None:
    entries = [str(number).encode() for number in range(100_000)]
    read = read_texts(coded(dictionary(texts(*entries)), batch(indices(70_000, 3, 70_000))), "value", LIMITS)
    assert read.distinct.to_pylist() == ["3", "70000"]


def test_metadata_of_any_size_are_passed_over() -> None:
    more = Table([Text(b"k"), Text(b"v" * (1 << 20))])
    field = field_of()
    described = schema(Table([*field.fields, Tables([more] * 8)]))
    assert arrow.rows_of(read_texts(stream(described, batch(A_B)), "value", LIMITS)) == ["a", "b"]


def test_a_name_that_claims_to_be_longer_than_the_metadata_is_another_one() -> None:
    metadata = schema().metadata
    place = metadata.index(b"\x05\0\0\0value")
    longer = stream(Message(at(metadata, place, struct.pack("<I", 2**32 - 1))), batch(A_B))
    with pytest.raises(Invalid):
        read_texts(longer, "value", LIMITS)


@pytest.mark.slow
def test_nothing_is_written_outside_of_what_was_given_out() -> None:
    """The process's memory pool checks the ends of each allocation when it is freed, and aborts if they were written to."""
    run = subprocess.run(
        [sys.executable, "-c", "from tests.unit.server.http.test_arrow_ipc import walk; walk()"],
        env={**os.environ, "ARROW_DEBUG_MEMORY_POOL": "abort"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "walked\n"), run.stderr


def walk() -> None:
    kept = [path.read_bytes() for path in REGRESSIONS.iterdir()]
    for body in (*BAD.values(), *(body for _, body in REFUSED.values()), *(body for body, _ in TAKEN.values()), *kept):
        arrow.check(body)
    for number in range(1000):
        rng = Random(number)
        arrow.check(arrow.mutate(rng, arrow.corpus(rng)))
    print("walked")


@pytest.mark.parametrize("path", sorted(REGRESSIONS.iterdir()), ids=lambda path: path.name)
def test_what_once_did_harm_is_malformed(path: Path) -> None:
    with pytest.raises(Malformed):
        read_texts(path.read_bytes(), "value", LIMITS)


def test_every_stream_of_the_corpus_is_read() -> None:
    assert {arrow.check(arrow.corpus(Random(number))) for number in range(200)} == {"read"}
