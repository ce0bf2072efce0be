"""Exact JSON: what nobody asked to change goes out as it came in.

JSON (RFC 8259) leaves open what a number's spelling means and what happens to a name that an object has twice. A vault
settles both: an untouched member keeps its spelling (1.10 stays 1.10, and 1e400 is no error), and of a repeated name the
last value counts and the others are gone (the name keeps its first place), in every object at every depth.

Two steps. ``check_json_text`` judges a whole request body once. It must pass before any part of that body is decoded:
``msgspec.Raw`` validates the grammar of what it skips, escaped surrogates included, but not its UTF-8, and its recursion
follows the input. ``Document`` then takes a record apart one object at a time, and only where somebody looks:

    {"a": 1.10, "b": {"x": 1}, "c": [1, 2]}   ->   {"a": Raw, "b": Raw, "c": Raw}   ->   {"a": Raw, "b": {"x": Raw}, "c": Raw}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec

from quorumvault import errors

#: Objects and arrays inside each other, the outermost counted. The contract's number: far above what records need, and
#: far below what would exhaust the stack of this process, or of whoever reads the answer.
MAX_DEPTH: Final = 64

#: Objects and arrays of one body: 10,000 records of thirty each. Each one takes about a microsecond and a hundred bytes to open,
#: and all of it is done while no other request is served.
MAX_CONTAINERS: Final = 300_000
#: Commas outside of strings, which count members and elements, for the same reason.
MAX_COMMAS: Final = 3_000_000

#: A part of a record: Raw as it came, the other scalars as they were put there.
Node: TypeAlias = "msgspec.Raw | str | bool | int | dict[str, Node] | list[Node]"
#: An object by its names, or an array by its positions.
Container: TypeAlias = "dict[Any, Node] | list[Node]"

encode = msgspec.json.Encoder().encode
_skim = msgspec.json.Decoder(msgspec.Raw).decode
_object: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[msgspec.Raw]).decode

#: Every byte but quotes and brackets.
_FILLING = bytes(set(range(256)) - set(b'"{}[]'))
#: A bracket as a step of the depth: +1, or -1 as a signed byte.
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_STRING = re.compile(rb'"[^"]*"?')
_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
#: All up to the first surrogate without its other half. Never steps back, and a search for that one would take ten times as long.
_BEFORE_LONE_SURROGATE = re.compile(rb"(?:[^\\]++|%b%b|(?!%b|%b)\\)*+" % (_HIGH, _LOW, _HIGH, _LOW))


def check_json_text(body: bytes) -> None:
    """Raises errors.Malformed unless ``body`` is one JSON text in UTF-8, at most 64 deep, without a lone surrogate."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise errors.Malformed(f"the body is not UTF-8 at byte {error.start}") from None
    _check_depth(body)
    _check_commas(body)
    try:
        _skim(body)
    except msgspec.DecodeError as error:
        raise errors.Malformed(_what_is_wrong(body, error)) from None


def _what_is_wrong(body: bytes, error: msgspec.DecodeError) -> str:
    """msgspec words a lone surrogate as if the text had ended; the rest it words well, with a place and no content."""
    before = _BEFORE_LONE_SURROGATE.match(_without_escaped_quotes(body))
    if before and before.end() < len(body):
        return f"the body is not JSON: an escaped surrogate without its other half at byte {before.end()}"
    return f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def _check_depth(body: bytes) -> None:
    """Works on bytes that may be no JSON: what it says of any beginning does not depend on what follows."""
    brackets = _brackets(body)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise errors.Malformed(f"the body has more than {MAX_CONTAINERS} objects and arrays; send it in parts")
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    if max(accumulate(steps), default=0) <= MAX_DEPTH:
        return
    raise errors.Malformed(f"the body is nested deeper than {MAX_DEPTH}")


def _check_commas(body: bytes) -> None:
    if body.count(b",") <= MAX_COMMAS:
        return
    if _STRING.sub(b"", _without_escaped_quotes(body)).count(b",") > MAX_COMMAS:
        raise errors.Malformed(f"the body has more than {MAX_COMMAS} members and elements; send it in parts")


def _brackets(text: bytes) -> bytes:
    """The brackets of a JSON text, in order, without those in strings.

    With all filling gone, '""' is an empty string or a seam between two strings: without it, each bracket that is left
    is inside a string, or outside, as before.
    """
    kept = _without_escaped_quotes(text).translate(None, _FILLING).replace(b'""', b"")
    return _STRING.sub(b"", kept) if b'"' in kept else kept


def _without_escaped_quotes(text: bytes) -> bytes:
    """Of the same length. A backslash pairs with the next byte from the left, so pairs of them go first."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


class Document:
    """One record, to be changed in place and written again. ``members`` is what an encoder of msgspec takes as it is."""

    __slots__ = ("members",)

    def __init__(self, members: dict[str, Node]) -> None:
        self.members = members

    @classmethod
    def parse(cls, text: bytes) -> Document:
        """``text`` is part of a body that ``check_json_text`` let pass. Raises errors.Invalid if it is no JSON object."""
        if text.find(b"{", 1) >= 0:  # else it has no inner objects, and dict has the last of its own names
            text = _without_repeated_names(text)
        try:
            return cls(_object(text))
        except msgspec.ValidationError:
            raise errors.Invalid("a record has to be a JSON object") from None

    def encode(self) -> bytes:
        return encode(self.members)


class _RepeatedName(Exception):
    """Some object has a name twice."""


def _refuse_repeats(members: list[tuple[str, object]]) -> None:
    """Nothing is made of an object that is in order: it will not be kept."""
    if len(dict(members)) < len(members):
        raise _RepeatedName


def _keep_last(members: list[tuple[str, object]]) -> msgspec.Raw:
    return msgspec.Raw(encode(dict(members)))


#: Of what numbers mean nothing is asked, and an integer of thousands of digits takes long to find out.
_look_for_repeats = json.JSONDecoder(object_pairs_hook=_refuse_repeats, parse_int=len, parse_float=len).decode
_without_repeats = json.JSONDecoder(object_pairs_hook=_keep_last, parse_int=msgspec.Raw, parse_float=msgspec.Raw).decode


def _without_repeated_names(text: bytes) -> bytes:
    """The same bytes, nearly always. Where a name has to go, numbers keep their spelling, and strings their content."""
    try:
        _look_for_repeats(text.decode())
    except _RepeatedName:
        return encode(_without_repeats(text.decode()))
    return text


def opened(container: Container, key: Any) -> Container | None:
    """The object or array at ``container[key]``, None if it is neither. One that still is Raw is taken apart first."""
    member = container[key]
    if not isinstance(member, msgspec.Raw):
        return member if isinstance(member, dict | list) else None
    text = encode(member)
    inner: Container
    if text.startswith(b"{"):
        inner = _object(text)
    elif text.startswith(b"["):
        inner = _array(text)
    else:
        return None
    container[key] = inner
    return inner
