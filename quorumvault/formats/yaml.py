"""YAML for configuration, without its surprises.

Plain scalars have a type only where YAML 1.1 and 1.2 agree on it: ``true``, ``false``, ``null``, decimal numbers such as 10 and
0.5. Anything else is text. So a country code ``no``, a date, ``0755`` and ``12:30`` stay text, where YAML 1.1 (and PyYAML) read a
boolean, a date, 493 and 750. ``7e10`` stays text too, since it may be an id in hexadecimal. What PyYAML writes as text is read as
text. Refused: duplicate keys, keys that are not text, anchors, aliases, tags.

This module builds values from the parser's events, since PyYAML's own composer (in C) recurses as deep as the file nests.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from quorumvault.errors import ConfigError

#: The most bytes of a configuration file: about 7,000 API keys, read in a third of a second.
MAX_BYTES: Final = 1 << 20

_CONSTANTS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

#: The parser in C is twenty times as fast; a PyYAML built without it has the same parser in Python.
_PARSER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(path: Path) -> object:
    """Reads a YAML file. Returns dicts with text as keys, lists and scalars; None for an empty file.

    Raises ConfigError with file and line. The error shows at most a key's name or one character of the content.
    """
    return parse_yaml(path, read_yaml(path))


def read_yaml(path: Path) -> str:
    """Returns the text of a YAML file, with its line ends as they are. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, "", f"expected a file that can be read: {error.strerror}") from None
    _check_size(path, len(data))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", f"text in UTF-8 without control characters (position {error.start})") from None


def parse_yaml(path: Path, text: str) -> object:
    """Parses ``text`` as ``load_yaml`` does. ``path`` is the file that ``text`` comes from or goes to. Raises ConfigError."""
    _check_size(path, len(text.encode()))
    try:
        return _document(yaml.parse(text, _PARSER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(path, f"line {mark.line + 1}" if mark else "", words) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(path, "", f"text in UTF-8 without control characters (position {error.position})") from None
    except RecursionError:
        raise ConfigError(path, "", "fewer levels inside each other") from None


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise ConfigError(path, "", f"a file of at most {MAX_BYTES} bytes")


def quoted(text: str) -> str:
    """Returns ``text`` as a quoted scalar on one line, so that ``yes``, ``1e3``, ``0x10`` or sixteen digits stay text."""
    return yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True).rstrip("\n")


def with_scalars(text: str, values: Mapping[tuple[str, ...], str]) -> str:
    """Returns the YAML with other texts at some places, quoted. A place is the keys that lead to a scalar, which must exist.

    Everything else stays, comments included. The caller has parsed ``text`` before, and parses the result before it writes it.
    """
    document: Any = yaml.compose(text, yaml.SafeLoader)
    found = [(_at(document, keys), value) for keys, value in values.items()]
    for scalar, value in sorted(found, key=lambda pair: -pair[0].start_mark.index):
        text = f"{text[: scalar.start_mark.index]}{quoted(value)}{text[scalar.end_mark.index :]}"
    return text


def _at(node: Any, keys: tuple[str, ...]) -> yaml.ScalarNode:
    for name in keys:
        node = next(value for key, value in node.value if key.value == name)
    scalar: yaml.ScalarNode = node
    return scalar


def _document(events: Iterator[yaml.Event]) -> object:
    next(events)  # the stream starts
    if not isinstance(next(events), yaml.DocumentStartEvent):
        return None
    value = _value(next(events), events)
    next(events)  # the document ends
    event = next(events)
    if not isinstance(event, yaml.StreamEndEvent):
        raise _refused(event, "one document in a file")
    return value


def _value(event: yaml.Event, events: Iterator[yaml.Event]) -> object:
    """Returns the value that ``event`` begins; takes the value's other events from ``events``."""
    if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor is not None:
        raise _refused(event, "anchors (&) and aliases (*) are not taken, write the value out")
    if event.tag is not None:
        raise _refused(event, "tags (!) are not taken")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    return _mapping(events) if isinstance(event, yaml.MappingStartEvent) else _sequence(events)


def _sequence(events: Iterator[yaml.Event]) -> list[object]:
    result: list[object] = []
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            break
        result.append(_value(event, events))
    return result


def _mapping(events: Iterator[yaml.Event]) -> dict[str, object]:
    result: dict[str, object] = {}
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            break
        key = _value(event, events)
        if not isinstance(key, str):
            raise _refused(event, "a key has to be text, quote it")
        if key in result:
            raise _refused(event, f"the key {key!r} is there twice")
        result[key] = _value(next(events), events)
    return result


def _scalar(event: yaml.ScalarEvent) -> object:
    text: str = event.value
    plain = event.implicit[0]
    if plain and text in _CONSTANTS:
        return _CONSTANTS[text]
    if plain and _INTEGER.fullmatch(text):
        return int(text)
    if plain and _FLOAT.fullmatch(text):
        return float(text)
    if _SURROGATE.search(text):
        raise _refused(event, "an escaped surrogate is no character")
    return text


def _refused(event: yaml.Event, words: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=words, problem_mark=event.start_mark)  # type: ignore[arg-type]  # marks of both parsers do
