"""The expressions that name fields: the subset of JSONPath (RFC 9535) that selects by names and positions alone.

    $.ssn    $.patient.name.family    $['given name']    $["it's"]    $.contacts[*].phone    $.codes[0]

No step depends on a record's content. Indices from the end are left out for that reason: which element [-1] means depends on the
array's length, so a compiler could not tell whether two expressions can lead to the same member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from quorumvault.formats.json import MAX_DEPTH


class Every(Enum):
    """The step ``[*]``: every element of an array, every member of an object."""

    ONE = "[*]"


#: A step from an object or array: to a member by name, to an element by index, or to all of them.
PathStep: TypeAlias = str | int | Every

_BLANK = r"[ \t\n\r]*"
_NAME = r"[A-Za-z_\x80-\ud7ff\ue000-\U0010ffff][0-9A-Za-z_\x80-\ud7ff\ue000-\U0010ffff]*"
_STEP = re.compile(
    rf"{_BLANK}(?:\.(?P<name>{_NAME})"
    rf"|\[{_BLANK}(?:(?P<every>\*)"
    rf"|(?P<index>0|[1-9][0-9]{{0,14}})"
    r"|(?P<single>'(?:[^'\\]|\\[bfnrtu/\\'])*')"
    r'|(?P<double>"(?:[^"\\]|\\[bfnrtu/\\"])*")'
    rf"){_BLANK}\])"
)
#: Forms of RFC 9535 that are not supported, and frequent mistakes, each with what to write instead.
_REFUSALS: Final = (
    (re.compile(r"\.\."), "descendants (..) are not taken, write the whole path"),
    (re.compile(r"\.\*"), "write [*] for every one"),
    (re.compile(r"\[\s*-"), "an index counts from the start, 0 being the first"),
    (re.compile(r"\[\s*\?"), "filters are not taken"),
    (re.compile(r"\[[^\]]*:"), "slices are not taken, write [*] or single indices"),
    (re.compile(r"\[[^\]]*,"), "write one path for each of these"),
    (re.compile(r"\[\s*[A-Za-z_]"), "quote a name in brackets: ['name']"),
    (re.compile(r"\.|[^\[]"), "a bare name is letters, digits and _, first no digit; quote any other: ['first-name']"),
)
_EXPECTED: Final = "expected .name, ['quoted name'], [*] or [0]"
_SHORTHAND = re.compile(_NAME)
_TO_DOUBLE_QUOTES = re.compile(r'\\.|"')
_TO_ESCAPE = re.compile(r"['\\\x00-\x1f]")
_ESCAPES: Final = {"'": "\\'", "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_decode_string = msgspec.json.Decoder(str).decode


class PathError(ValueError):
    """An expression is not a supported path. The message says what is wrong, and at which character."""


@dataclass(frozen=True, slots=True)
class FieldPath:
    """One expression: its text as written, and its steps from the record's root."""

    text: str
    steps: tuple[PathStep, ...]

    @classmethod
    def parse(cls, text: str) -> FieldPath:
        """Parses an expression. Raises PathError."""
        if not text.startswith("$"):
            raise PathError("a path starts with $, the record: $.ssn")
        steps: list[PathStep] = []
        position = 1
        while position < len(text):
            match = _STEP.match(text, position)
            if match is None:
                raise PathError(f"{_why_not(text, position)} (at character {position + 1})")
            steps.append(_step(match))
            position = match.end()
        if not steps:
            raise PathError("$ alone is the record and no field of it: $.ssn")
        if len(steps) >= MAX_DEPTH:
            raise PathError(f"fewer than {MAX_DEPTH} steps: no record is nested deeper")
        return cls(text, tuple(steps))

    def __str__(self) -> str:
        """The canonical spelling of these steps (``concrete_path``), whatever the text was."""
        return concrete_path(self.steps)


def _step(match: re.Match[str]) -> PathStep:
    kind = match.lastgroup or ""
    text = match[kind]
    if kind == "name":
        return text
    if kind == "every":
        return Every.ONE
    if kind == "index":
        return int(text)
    return _unquoted(text, match)


def _unquoted(text: str, match: re.Match[str]) -> str:
    """Returns a quoted name without its quotes. RFC 9535 allows JSON strings, and the same in single quotes."""
    if text.startswith("'"):
        inner = _TO_DOUBLE_QUOTES.sub(lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), text[1:-1])
        text = f'"{inner}"'
    try:
        return _decode_string(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise PathError(f"a name is quoted like a string of JSON (at character {match.start() + 1})") from None


def _why_not(text: str, position: int) -> str:
    return next((words for form, words in _REFUSALS if form.match(text, position)), _EXPECTED)


def column_name(steps: Sequence[PathStep]) -> str:
    """Returns the name of a column of records: the bare name of a top-level member, else the path.

    A name that begins with ``$`` is written as a path too, since the bare name would be read as one.
    """
    first = steps[0]
    return first if len(steps) == 1 and isinstance(first, str) and not first.startswith("$") else concrete_path(steps)


def texts_in(value: object, steps: tuple[PathStep, ...] = ()) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    """Yields the strings in a decoded JSON value, with the steps to each; every array element is ``Every.ONE``."""
    if isinstance(value, str):
        yield steps, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from texts_in(member, (*steps, name))
    elif isinstance(value, list):
        for element in value:
            yield from texts_in(element, (*steps, Every.ONE))


def concrete_path(steps: Iterable[PathStep]) -> str:
    """Returns a path such as ``$.contacts[1].phone``: names bare where RFC 9535 has a shorthand, else quoted as normalised paths.

    Under a wildcard field the path shows names from the record. Show it only to the sender of the record, never in a log.
    """
    return "$" + "".join(map(_spelled, steps))


def _spelled(step: PathStep) -> str:
    if isinstance(step, Every):
        return step.value
    if isinstance(step, int):
        return f"[{step}]"
    if _SHORTHAND.fullmatch(step):
        return f".{step}"
    return "['" + _TO_ESCAPE.sub(lambda found: _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}", step) + "']"
