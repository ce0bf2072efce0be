"""Metadata of Parquet files and frames: an entry is not copied if it contains a value of a column that becomes tokens.

Labels of Spark's StringIndexer, attributes of a pandas frame, and notes of the file's author may all contain values. Their words
and their JSON are compared with all values of the columns, not with a sample.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

_WORDS: Final = re.compile(r"[^\s,;|\"'=:\[\]{}()<>]+")
#: Shorter words, such as the 0 at which an index starts, reveal nothing about a value.
_LEAST: Final = 4
#: The words that pandas and Spark write for any frame. Only other words are compared with the values.
_USUAL: Final = frozenset(
    """
    RangeIndex range None null true false struct name type fields nullable metadata string integer long short byte
    double float boolean binary date timestamp pandas numpy pyarrow unicode object int8 int16 int32 int64 uint8
    uint16 uint32 uint64 float32 float64 bool bytes datetime datetimetz categorical empty mixed UTF-8 library
    version kind start stop step index_columns column_indexes columns creator attributes field_name pandas_type
    numpy_type encoding str
    """.split()  # noqa: SIM905 - sixty lines otherwise
)


def without_values(schema: Any, values: Callable[[], Iterable[Any]]) -> tuple[Any, list[str]]:
    """Returns ``schema`` without the metadata entries, its own and its fields', that contain a value; and their keys.

    ``values`` returns arrays of text, or dictionaries of text, with all values. It is called if the metadata may contain one.
    """
    said: dict[str, set[str]] = {}
    for key, text in _entries(schema):
        said.setdefault(key, set()).update(_parts(text))
    asked = {part for parts in said.values() for part in parts if len(part) >= _LEAST} - _USUAL - set(schema.names)
    found = _found(values(), asked) if asked else set()
    left_out = {key for key, parts in said.items() if parts & found}
    fields = [field.with_metadata(_kept(field.metadata, f"{field.name}: ", left_out)) for field in schema]
    return pa.schema(fields, _kept(schema.metadata, "", left_out)), sorted(left_out)


def _entries(schema: Any) -> Iterator[tuple[str, str]]:
    for prefix, metadata in (("", schema.metadata), *((f"{field.name}: ", field.metadata) for field in schema)):
        for key, value in (metadata or {}).items():
            name = prefix + key.decode(errors="replace")
            yield name, key.decode(errors="replace")
            yield name, value.decode(errors="replace")


def _kept(metadata: Any, prefix: str, left_out: set[str]) -> Any:
    kept = {key: value for key, value in (metadata or {}).items() if prefix + key.decode(errors="replace") not in left_out}
    return kept or None


def _parts(text: str) -> Iterator[str]:
    """Yields the text, its words and, if it is JSON, the texts in it and their words."""
    yield text
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, (dict, list)):
        yield from _texts_of(read)
    else:
        yield from _WORDS.findall(text)


def _texts_of(read: Any) -> Iterator[str]:
    waiting = [read]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str):
            yield from _parts(each)
        elif each is not None:
            yield json.dumps(each)


def _found(values: Iterable[Any], asked: set[str]) -> set[str]:
    """Returns the texts of ``asked`` that are among the values."""
    wanted = pa.array(sorted(asked), pa.large_utf8())
    found: set[str] = set()
    for column in values:
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        texts = texts.cast(pa.large_utf8())
        found.update(texts.filter(pc.is_in(texts, wanted)).unique().to_pylist())
    return found
