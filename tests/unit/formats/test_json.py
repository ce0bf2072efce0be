"""Exact JSON: check_json_text accepts exactly what a second reader accepts, and accepted text keeps its spelling."""

import json
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quorumvault.errors import Invalid, Malformed
from quorumvault.formats import json as exact_json
from quorumvault.formats.json import MAX_DEPTH, Document, check_json_text, check_steps, opened

NUMBERS = ["0", "-0", "1", "1.10", "1.0", "1e400", "-1E+2", "0.000", "123456789012345678901234567890"]
blanks = st.sampled_from(["", "", " ", "\n\t", "\r\n  "])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(['"', "{", "}[", "\\", "\\ud800", "null"])
#: A small set of names, so that objects repeat some of them.
names = st.sampled_from(["a", "b", "é", "a b", '"', "{", "\\"]) | texts


@st.composite
def strings(draw: st.DrawFn, content: st.SearchStrategy[str]) -> str:
    return json.dumps(draw(content), ensure_ascii=draw(st.booleans()))


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    blank = draw(blanks)
    return "[" + blank + f"{blank},".join(draw(st.lists(items, max_size=4))) + blank + "]"


@st.composite
def objects(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    blank = draw(blanks)
    members = draw(st.lists(st.tuples(strings(names), items), max_size=5))
    return "{" + blank + f",{blank}".join(f"{name}{blank}:{blank}{item}" for name, item in members) + blank + "}"


scalars = st.sampled_from([*NUMBERS, "true", "false", "null"]) | strings(texts)
values = st.recursive(scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=12)
records = objects(values)


class Spelling(str):
    """The spelling of a number, as a type that is not equal to a string."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spelling) and str.__eq__(self, other)

    __hash__ = str.__hash__


def read(text: bytes | str) -> Any:
    """Read with the standard library, keeping the spelling of numbers. An object must not repeat a name."""
    return json.loads(text, parse_int=Spelling, parse_float=Spelling)


def repeats_a_name(text: bytes | str) -> bool:
    found = False

    def members(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)

    json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=members)
    return found


def in_order(value: Any) -> Any:
    """Convert the value so that == compares the order of members."""
    if isinstance(value, dict):
        return [(name, in_order(member)) for name, member in value.items()]
    return [in_order(item) for item in value] if isinstance(value, list) else value


@given(records.filter(lambda text: not repeats_a_name(text)))
@example('{"a":{"b":' + "9" * 5000 + "}}")
def test_a_record_comes_back_with_its_numbers_and_its_order(text: str) -> None:
    check_json_text(text.encode())
    back = Document.parse(text.encode()).encode()
    assert in_order(read(back)) == in_order(read(text))


@given(st.lists(scalars, max_size=6))
@example(["9" * 5000])
def test_scalars_keep_every_byte(members: list[str]) -> None:
    record = "{" + ",".join(f'"m{n}":{text}' for n, text in enumerate(members)) + "}"
    assert Document.parse(record.encode()).encode() == record.encode()


@pytest.mark.parametrize(
    ("record", "encoded"),
    [
        (b'{"a":{"b": "\\u00e9\\/", "c" :[1 , {"d":1e400}]},"e":"{"}', None),
        (b' { "a" : [1 , 2] ,\n"b": "x  " } ', b'{"a":[1 , 2],"b":"x  "}'),  # blanks around a member are dropped, others stay
    ],
)
def test_members_keep_every_byte(record: bytes, encoded: bytes | None) -> None:
    assert Document.parse(record).encode() == (encoded or record)


@pytest.mark.parametrize("text", [b"1", b"null", b'"{}"', b"[{}]", b"true"])
def test_only_an_object_is_a_record(text: bytes) -> None:
    with pytest.raises(Invalid, match="JSON object"):
        Document.parse(text)


def test_opening_leaves_what_is_written_as_it_was() -> None:
    document = Document.parse(b'{"a":[1.10,[2]],"b":{"c":1},"d":"[1]","e":7}')
    first, inner = opened(document.members, "a"), opened(document.members, "b")
    assert isinstance(first, list)
    assert isinstance(inner, dict)
    assert opened(first, 1) == [msgspec.Raw(b"2")]
    assert opened(document.members, "d") is None
    assert opened(document.members, "e") is None
    assert opened(document.members, "a") is first
    assert document.encode() == b'{"a":[1.10,[2]],"b":{"c":1},"d":"[1]","e":7}'


# Text that is not JSON.


def deepest(text: str) -> int:
    """The depth of a JSON text, found one character at a time."""
    depth = most = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "{[":
            depth += 1
            most = max(most, depth)
        elif character in "}]":
            depth -= 1
    return most


def is_acceptable(body: bytes) -> bool:
    """Judge by the standard library, with checks for what it would accept: a lone surrogate, NaN, and any depth."""

    def refuse(_: str) -> None:
        raise ValueError

    def pairs(members: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return members

    try:
        text = body.decode()
        value = json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str, object_pairs_hook=pairs)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return deepest(text) <= MAX_DEPTH and not repeats_a_name(text)


def accepts(body: bytes) -> bool:
    try:
        check_json_text(body)
    except Malformed:
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON with a few pieces inserted or replaced: mostly no longer JSON, but close to it."""
    body = bytearray(draw(values).encode())
    pieces = st.sampled_from([*map(bytes, zip(b'"\\{}[],:0\n\xc3')), b"NaN", b"\\ud800", b"\\udc00"])
    for piece in draw(st.lists(pieces, max_size=3)):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 1))] = piece
    return bytes(body)


@given(damaged() | st.binary(max_size=12))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"":' * 100_000)
@example(b'["' + b"[" * 100)
@example(b'["' + b"[" * 100 + b'"]')
@example(b'["\\\\",' + b"[" * 63 + b"]" * 63 + b',"\\"' + b"[" * 100 + b'"]')
@example(b'["","","[","]",""]')
def test_two_readers_agree_about_what_is_json(body: bytes) -> None:
    assert accepts(body) == is_acceptable(body)


@given(damaged() | values.map(str.encode), st.integers(1, 9))
@example(b'{"a":1,"b":{"a":2,"\\u0061" \n:3}}', 3)
@example(b'{"\\"":1,"\\"":1}', 2)
@example(b'["\\\\","\\\\",{"a":"\\"a","a":0}]', 1)
def test_a_large_body_that_is_looked_at_piece_by_piece_is_judged_like_a_small_one(body: bytes, size: int) -> None:
    with mock.patch.multiple(exact_json, _SMALL=-1, _STEP_BYTES=size, _STEP_NAMES=1):
        assert accepts(body) == is_acceptable(body)


@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize(
    ("body", "byte"),
    [
        (b'{"a":1,"a":2}', 7),
        (b'{"a":{"b":1,"c":[{"b":1},{"x" :1,"\\u0078":2}]}}', 33),
        (b'[{"secret":1},{"secret":1},{"":"","":""}]', 34),
    ],
)
def test_the_place_of_a_repeated_name_is_told_and_not_the_name(body: bytes, byte: int, small: int) -> None:
    with mock.patch.object(exact_json, "_SMALL", small), pytest.raises(Malformed) as caught:
        check_json_text(body)
    assert caught.value.detail == f"an object of the body has one name twice, at byte {byte}"


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b" " * (4 << 20) + b"]",
        b'["' + b"\\\\" * (2 << 20) + b'"]',
        b'["' + b'\\"' * (2 << 20) + b'"]',
        b'{"a":[' + b'{"b":"{,"},' * 100_000 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}",
    ],
    ids=["blanks", "backslashes", "quotes", "objects", "names"],
)
def test_a_large_body_is_judged_in_many_steps_whatever_its_shape(body: bytes) -> None:
    steps = sum(1 for _ in check_steps(body))
    assert steps > len(body) // (200 << 10)


@given(values, st.integers(1, MAX_DEPTH + 3), st.integers(1, MAX_DEPTH + 3))
def test_the_limit_of_depth_is_exact(text: str, outside: int, beside: int) -> None:
    beside_it = "[" * beside + "]" * beside
    body = "[" * outside + f"{text},{beside_it}" + "]" * outside
    assert accepts(body.encode()) == (deepest(body) <= MAX_DEPTH and not repeats_a_name(text))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"ssn":"secret \xff"}', "not UTF-8 at byte 15"),
        (b'{"ssn":"secret \xed\xa0\x80"}', "not UTF-8 at byte 15"),
        (b'{"a":"secret \\ud800"}', "surrogate without its other half at byte 13"),
        (b'{"a":"secret \\uDC00"}', "surrogate without its other half at byte 13"),
        (b'{"secret":{"\\ud800":1}}', "surrogate without its other half at byte 12"),
        (b'["\\ud83d\\ude00 secret","\\\\ud800","\\\\\\ud800\\\\udc00"]', "surrogate without its other half at byte 36"),
        (b'["secret \\ud800\\ud800\\udc00"]', "surrogate without its other half at byte 9"),
        (b'["secret \\ud800\\udc00\\udc00"]', "surrogate without its other half at byte 21"),
        (b'{"secret":NaN}', "byte 10"),
        (b'{"secret":-Infinity}', "byte 11"),
        (b'{"a":"secret"} {}', "trailing characters (byte 16)"),
        (b'{"a":"secret",}', "byte 14"),
        (b'{"a":secret}', "byte 5"),
        (b'{"a":"secret', "truncated"),
        (b'{"a":"secret' + b"[" * 100, "truncated"),
        (b'{"secret":"}}}}","a":' + b"[" * 64, "nested deeper than 64"),
    ],
)
def test_a_refusal_names_the_place_and_nothing_of_what_is_there(body: bytes, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_json_text(body)
    assert words in caught.value.detail
    assert "secret" not in caught.value.detail


def test_brackets_in_strings_are_not_depth() -> None:
    body = '{"é[\\"[":["[[[",' + "[" * 62
    check_json_text((body + "]" * 62 + "]}").encode())
    with pytest.raises(Malformed, match=r"nested deeper than 64$"):
        check_json_text((body + "[").encode())


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("[" + "{}," * 300_000 + "{}]", "more than 300000 objects"),
        ("[" + "1," * 1_000_001 + "1]", "more than 1000000 members"),
        ("{" + ",".join(f'"{number}":0' for number in range(100_001)) + "}", "more than 100000 names"),
    ],
    ids=["containers", "commas", "names"],
)
def test_what_would_hold_up_all_others_is_refused(body: str, what: str) -> None:
    with pytest.raises(Malformed, match=what):
        check_json_text(body.encode())


def test_commas_in_strings_are_content() -> None:
    check_json_text(f'["{"," * 1_000_001}"]'.encode())


@given(damaged())
def test_what_passes_the_check_can_be_taken_apart(body: bytes) -> None:
    record = b'{"a":' + body + b"}"
    if accepts(record):
        assert read(Document.parse(record).encode()) == read(record)
