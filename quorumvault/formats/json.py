"""Exact JSON: a document changes only where the caller replaces a value.

JSON (RFC 8259) does not say what a number's spelling means, or what happens if an object has a name twice. This module settles
both: an untouched member keeps its spelling (1.10 stays 1.10, and 1e400 is no error), and a text in which an object at any depth
has a name twice is refused (RFC 7493, section 2.3).

There are two steps. ``check_json_text`` checks a whole request body once. The body must pass before any part of it is decoded:
``msgspec.Raw`` validates the grammar of what it skips, escaped surrogates included, but not its UTF-8, and its recursion is as
deep as the input. ``Document`` then decodes a record one object at a time, and only where the caller looks:

    {"a": 1.10, "b": {"x": 1}, "c": [1, 2]}   ->   {"a": Raw, "b": Raw, "c": Raw}   ->   {"a": Raw, "b": {"x": Raw}, "c": Raw}

A node checks bodies of 16 MiB on its event loop. ``check_steps`` is the same check in steps of a few milliseconds, whatever the
body's shape. One step cannot be cut: a pass of msgspec over 16 MiB takes 15 ms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec

from quorumvault import errors

#: The most objects and arrays inside each other, the outermost included. It is part of the API's contract: far above what records
#: need, and far below what would exhaust the stack of this process or of a client that reads the answer.
MAX_DEPTH: Final = 64

#: The most objects and arrays in one body: 10,000 records of thirty each. Opening one takes about a microsecond and 100 bytes.
MAX_CONTAINERS: Final = 300_000
#: The most commas outside strings, which count members and elements: 10,000 records of a hundred each. An array of this many
#: elements is opened in one step of 50 ms.
MAX_COMMAS: Final = 1_000_000
#: The most names of one object and the objects around it together: the check for repeated names keeps them.
MAX_NAMES: Final = 100_000

#: A part of a record: Raw if unchanged; other scalars are replacements.
Node: TypeAlias = "msgspec.Raw | str | bool | int | dict[str, Node] | list[Node]"
#: An object with names as keys, or an array with positions.
Container: TypeAlias = "dict[Any, Node] | list[Node]"

encode = msgspec.json.Encoder().encode
_skim = msgspec.json.Decoder(msgspec.Raw).decode
_name: Callable[[bytes], str] = msgspec.json.Decoder(str).decode
_object: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[msgspec.Raw]).decode

#: Bytes of a body for one step: up to 6 ms, if the body consists of short strings.
_STEP_BYTES = 128 << 10
#: Names and braces for one step: about 3 ms.
_STEP_NAMES = 8_192
#: For a body up to this size, the standard library's parser looks for repeated names, in one step of up to 15 ms.
_SMALL = 256 << 10

#: Every byte but quotes, brackets and commas.
_FILLING = bytes(set(range(256)) - set(b'"{}[],'))
#: Maps a bracket to its change of depth: +1, or -1 as a signed byte.
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_STRING = re.compile(rb'"[^"]*"?')
#: In a piece of text without escaped quotes, matches a brace, or a string's content followed by (2) the colon that makes it a
#: name, (3) blanks up to the piece's end, after which a colon may follow, or (4) the piece's end.
_NAME_OR_BRACE = re.compile(rb'"([^"]*+)(?:("[ \t\n\r]*+:)|"([ \t\n\r]*+\Z)?|(\Z))|[{}]')
_BLANKS = b" \t\n\r"
_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
#: Matches everything up to the first lone surrogate. It never backtracks; searching for the surrogate takes ten times as long.
_BEFORE_LONE_SURROGATE = re.compile(rb"(?:[^\\]++|%b%b|(?!%b|%b)\\)*+" % (_HIGH, _LOW, _HIGH, _LOW))


#: The default name of the text in errors.
BODY: Final = "the body"


def check_json_text(body: bytes, subject: str = BODY) -> None:
    """Raises errors.Malformed unless ``body`` is JSON in UTF-8, at most 64 deep, without lone surrogates or repeated names.

    ``subject`` is the name of the text in the error.
    """
    for _ in check_steps(body, subject):
        pass


def check_steps(body: bytes, subject: str = BODY) -> Iterator[None]:
    """``check_json_text`` in steps of a few milliseconds, between which the caller may do other work. Raises errors.Malformed."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise errors.Malformed(f"{subject} is not UTF-8 at byte {error.start}") from None
    yield
    if len(body) > MAX_COMMAS or body.count(b"{") + body.count(b"[") > MAX_DEPTH:  # else the body cannot exceed any limit
        for _ in parts_in_steps(body, subject):
            yield
    try:
        _skim(body)
    except msgspec.DecodeError as error:
        raise errors.Malformed(_what_is_wrong(body, error, subject)) from None
    yield
    yield from check_names(body, subject)


def _what_is_wrong(body: bytes, error: msgspec.DecodeError, subject: str) -> str:
    """Words an error of msgspec. Its text is wrong only for a lone surrogate; else it names a place and shows no content."""
    words = str(error).removeprefix("JSON is malformed: ")
    if len(body) > _SMALL:  # the search for a lone surrogate would be a long step
        return f"{subject} is not JSON, or has an escaped surrogate without its other half: {words}"
    before = _BEFORE_LONE_SURROGATE.match(_without_escaped_quotes(body))
    if before and before.end() < len(body):
        return f"{subject} is not JSON: an escaped surrogate without its other half at byte {before.end()}"
    return f"{subject} is not JSON: {words}"


def parts_in_steps(body: bytes, subject: str = BODY) -> Iterator[int]:
    """Yields the number of commas, objects and arrays outside strings so far. At the end it is at least the number of values.

    Raises errors.Malformed for too many commas, too many objects and arrays, or nesting that is too deep. The body need not be
    JSON: the result for a prefix does not depend on what follows it.
    """
    depth = containers = commas = 0
    quoted = False
    for _, piece in _pieces(body):
        outline, quoted = _outline(piece, quoted)
        brackets = outline.translate(None, b",")
        commas += len(outline) - len(brackets)
        steps = memoryview(brackets.translate(_STEPS)).cast("b")
        containers += (len(steps) + sum(steps)) // 2
        if containers > MAX_CONTAINERS:
            raise errors.Malformed(f"{subject} has more than {MAX_CONTAINERS} objects and arrays; send it in parts")
        if commas > MAX_COMMAS:
            raise errors.Malformed(f"{subject} has more than {MAX_COMMAS} members and elements; send it in parts")
        if max(accumulate(steps, initial=depth)) > MAX_DEPTH:
            raise errors.Malformed(f"{subject} is nested deeper than {MAX_DEPTH}")
        depth += sum(steps)
        yield commas + containers


def _pieces(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the text in pieces, each with its start. Escaped quotes are masked, so every quote begins or ends a string."""
    start = 0
    while start < len(text):
        piece = text[start : start + _STEP_BYTES]
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        if backslashes % 2:  # the last backslash escapes the next byte
            piece = text[start : start + _STEP_BYTES + 1]
        yield start, _without_escaped_quotes(piece)
        start += len(piece)


def _outline(piece: bytes, quoted: bool) -> tuple[bytes, bool]:
    """Returns the brackets and commas of a piece outside strings, in order, and whether the piece ends inside a string.

    ``quoted``: the piece begins inside a string. Without the filling, '""' is an empty string or the seam between two strings.
    Removing it leaves every bracket and comma inside a string, or outside, as before.
    """
    kept = (b'"' if quoted else b"") + piece.translate(None, _FILLING)
    ends_quoted = kept.count(b'"') % 2 == 1
    kept = kept.replace(b'""', b"")
    return (_STRING.sub(b"", kept) if b'"' in kept else kept), ends_quoted


def _without_escaped_quotes(text: bytes) -> bytes:
    """Masks escaped quotes, and keeps the length. Backslashes pair up from the left, so double backslashes are masked first."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


class Document:
    """One record, to change in place and write again. msgspec encodes ``members`` as they are.

    ``encode`` keeps the spelling of values; rewriting.py keeps everything else of ``text`` as well.
    """

    __slots__ = ("members", "text")

    def __init__(self, members: dict[str, Node], text: bytes) -> None:
        self.members = members
        self.text = text

    @classmethod
    def parse(cls, text: bytes) -> Document:
        """Parses ``text``, part of a body that passed ``check_json_text``. Raises errors.Invalid if it is not a JSON object."""
        try:
            return cls(_object(text), text)
        except msgspec.ValidationError:
            raise errors.Invalid("a record has to be a JSON object") from None

    def encode(self) -> bytes:
        return encode(self.members)


class _RepeatedName(Exception):
    """An object has a name twice."""


def _refuse_repeats(members: list[tuple[str, object]]) -> None:
    """Raises _RepeatedName for an object with a repeated name. Else returns None: the decoded value is not used."""
    if len(dict(members)) < len(members):
        raise _RepeatedName


#: The decoder does not convert numbers: an integer of thousands of digits would take long.
_look_for_repeats = json.JSONDecoder(object_pairs_hook=_refuse_repeats, parse_int=len, parse_float=len).decode


def check_names(text: bytes, subject: str = BODY) -> Iterator[None]:
    """Checks, in steps, that no object of a valid JSON text has a name twice. Raises errors.Malformed, which names the byte."""
    if _has_names_once(text):
        return
    if len(text) <= _SMALL:
        try:
            _look_for_repeats(text.decode())
        except _RepeatedName:
            pass
        else:
            return
    yield from _find_repeat(text, subject)


def _has_names_once(text: bytes) -> bool:
    """Returns True for most flat objects without repeated names: their colons, or quotes before a colon, count the names."""
    if len(text) > _SMALL or text.count(b"{") != 1 or not text.startswith(b"{"):
        return False
    colons = text.count(b":")
    if colons != (behind_quotes := text.count(b'":')) and not _BLANK_BEFORE_COLON.search(text):
        colons = behind_quotes
    return len(_object(text)) == colons


_BLANK_BEFORE_COLON = re.compile(rb"[ \t\n\r]:")


def _find_repeat(text: bytes, subject: str) -> Iterator[None]:
    names, begin = _Names(text, subject), 0
    before: tuple[int, int] | None = None
    quoted = False
    for start, piece in _pieces(text):
        yield
        at = 0
        if quoted:  # find the end of the string that began in an earlier piece
            at = piece.find(b'"') + 1
            if not at:
                continue
            before, quoted = (begin, start + at - 1), False
        if before is not None and (rest := piece[at:].lstrip(_BLANKS)):
            if rest.startswith(b":"):
                names.add(*before)
            before = None
        for count, found in enumerate(_NAME_OR_BRACE.finditer(piece, at), 1):
            if count % _STEP_NAMES == 0:
                yield
            match found.lastindex:
                case None:
                    names.brace(piece[found.start()])
                case 2:
                    names.add(start + found.start(1), start + found.end(1))
                case 3:
                    before = start + found.start(1), start + found.end(1)
                case 4:
                    quoted, begin = True, start + found.start(1)


class _Names:
    """The names so far of the open objects, the outermost object first."""

    def __init__(self, text: bytes, subject: str) -> None:
        self._text = text
        self._subject = subject
        self._objects: list[set[bytes]] = []
        self._held = 0

    def brace(self, brace: int) -> None:
        if brace == _OPENING:
            self._objects.append(set())
        else:
            self._held -= len(self._objects.pop())

    def add(self, start: int, end: int) -> None:
        """Notes the name between two places. Raises errors.Malformed if the object already has this name."""
        name, names = self._text[start:end], self._objects[-1]
        if b"\\" in name:
            name = _name(b'"' + name + b'"').encode()
        if name in names:
            raise errors.Malformed(f"an object of {self._subject} has one name twice, at byte {start - 1}")
        names.add(name)
        self._held += 1
        if self._held > MAX_NAMES:
            raise errors.Malformed(f"an object of {self._subject} has more than {MAX_NAMES} names; send it in parts")


_OPENING = ord("{")


def opened(container: Container, key: Any) -> Container | None:
    """Returns the object or array at ``container[key]``, None if it is neither. If it is still Raw, decodes one level first."""
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
