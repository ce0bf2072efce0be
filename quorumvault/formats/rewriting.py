"""Writes a changed document so that only the replaced values differ from its text: blanks and the spelling of names stay.

msgspec writes names in a spelling of its own: ``x\\u0079`` becomes ``xy``. This module walks the document's containers in step
with its text, since both have the members in the same order. It enters only objects and arrays that were opened. Any other member
is copied whole, or was replaced.

A member takes about a microsecond. So ``Rewriter`` finds values by their names where these are unambiguous, and a node uses this
walk only for records that may have an escaped name.
"""

import re
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from quorumvault.formats.json import Container, Document, encode

#: Members between two pieces: a node's event loop runs other work in between.
_PIECE_MEMBERS: Final = 4096
#: A text up to this size is searched for escaped names, in at most 3 ms; a larger text is assumed to have some.
_SEARCHED_BYTES: Final = 256 << 10

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_BEFORE_MEMBER = re.compile(rb"[ \t\n\r,]*+%b[ \t\n\r]*+:[ \t\n\r]*+" % _STRING)
_BEFORE_ELEMENT = re.compile(rb"[ \t\n\r,]*+")
_COLON = re.compile(rb"[ \t\n\r]*+:[ \t\n\r]*+")
_SCALAR = re.compile(rb"%b|[^ \t\n\r,\]}]++" % _STRING)
_STRING_OR_BRACKET = re.compile(rb"%b|[{\[]|([}\]])" % _STRING)
#: The bytes that can follow a value.
_BEHIND: Final = b" \t\n\r,]}"
#: Matches everything up to the first name with an escape that msgspec would write otherwise. It never backtracks.
_BEFORE_ESCAPED_NAME = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\[^u/])*+(?:"|\\[u/](?:[^"\\]++|\\.)*+"(?![ \t\n\r]*+:)))*+')


def may_escape_names(text: bytes) -> bool:
    """Returns whether a valid JSON text has names with escapes that msgspec would not write, or is too large to search."""
    if b"\\" not in text:
        return False
    if len(text) > _SEARCHED_BYTES:
        return True
    before = _BEFORE_ESCAPED_NAME.match(text)
    return before is None or before.end() < len(text)


def rewritten(document: Document) -> Iterator[bytes]:
    """Yields the document's text with its replaced values, in pieces."""
    text = document.text
    start = text.index(b"{") + 1
    yield text[:start]
    end = yield from _members(text, start, document.members)
    yield text[end:]


def _members(text: bytes, at: int, container: Container) -> Generator[bytes, None, int]:
    """Yields the text between an opening bracket and its closing bracket, and returns the place of the closing one."""
    named = isinstance(container, dict)
    before = _BEFORE_MEMBER if named else _BEFORE_ELEMENT
    kept = at
    for count, value in enumerate(container.values() if isinstance(container, dict) else container, 1):
        at = _end(before, text, at)
        if isinstance(value, dict | list):
            yield text[kept : at + 1]
            kept = yield from _members(text, at + 1, value)
            at = kept + 1
        elif not (isinstance(value, msgspec.Raw) and (end := _unchanged(text, at, value))):
            yield text[kept:at]
            yield encode(value)
            at = kept = end_of_value(text, at)
        else:
            at = end
        if count % _PIECE_MEMBERS == 0:
            yield text[kept:at]
            kept = at
    end = _end(_BEFORE_ELEMENT, text, at)
    yield text[kept:end]
    return end


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        raise AssertionError("a document and its text differ")
    return found.end()


def _unchanged(text: bytes, at: int, value: msgspec.Raw) -> int:
    """Returns where the value at this place ends if it is ``value``, else 0."""
    raw = bytes(value)
    end = at + len(raw)
    return end if text.startswith(raw, at) and text[end] in _BEHIND else 0


def end_of_value(text: bytes, at: int) -> int:
    """Returns the end of the value that begins at ``at`` in a valid JSON text."""
    if text[at] not in b"{[":
        return _end(_SCALAR, text, at)
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, at):
        if found.lastindex:
            depth -= 1
            if not depth:
                return found.end()
        elif len(found[0]) == 1:
            depth += 1
    raise AssertionError("a bracket does not close in a valid text")


def place_by_name(text: bytes, name: str, raw: bytes) -> int:
    """Returns the start of the value ``raw`` of member ``name`` in a text with ``plain_names``; -1 if its name is ambiguous.

    The quoted name must occur once. The byte before it shows that it is a whole string, and the colon after it that it is a name.
    The text has no other spelling of it, since it has no character that such a text would escape.
    """
    quoted = encode(name)
    found = text.find(quoted)
    if found < 1 or not quoted.isascii() or _ESCAPED.search(quoted) or text[found - 1] == _BACKSLASH:
        return -1
    at = found + len(quoted)
    if text.find(quoted, at) >= 0:
        return -1
    if text.startswith(b":", at) and text.startswith(raw, at + 1):  # the usual spelling
        return at + 1
    colon = _COLON.match(text, at)
    return colon.end() if colon is not None and text.startswith(raw, colon.end()) else -1


_BACKSLASH: Final = ord("\\")
#: Characters of a name that have more than one spelling, even without ``\u`` escapes of printable ASCII.
_ESCAPED = re.compile(rb"[\\/]")
#: An escape of a printable character of ASCII, or of DEL.
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")


def plain_names(text: bytes) -> bool:
    """Returns whether all names of printable ASCII without slash, quote and backslash are spelled without an escape."""
    return _ESCAPED_ASCII.search(text) is None
