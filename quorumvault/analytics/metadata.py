"""Metadata of Parquet files and frames: an entry is not copied if it contains a value of a column that becomes tokens.

Labels of Spark's StringIndexer, attributes of a pandas frame, and notes of the file's author may all contain values. Their words
and their JSON are compared with all values of the columns, not with a sample, and without regard to case and punctuation.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from quorumvault.client.scalars import USUAL_NULLS

_BETWEEN_WORDS: Final = r"""[\s,;|"'=:\[\]{}()<>]+"""
_WORD: Final = re.compile(_BETWEEN_WORDS.replace("[", "[^", 1))
_QUOTED: Final = re.compile(r"""'([^']*)'|"([^"]*)\"""")
#: The last word of a time, less its zeros and its zone, neither of which DuckDB writes.
_SECONDS: Final = re.compile(r"(\d\d)(?:\.0+|(\.\d*[1-9])0*)?(?:[zZ]|[+-]\d\d)?")
_BASE64: Final = re.compile(r"[\w+/-]{6,}={0,2}", re.ASCII)
#: Shorter words, such as the 0 at which an index starts, say nothing of a value; whole texts of JSON may.
_LEAST: Final = 4
#: Words side by side that may be one value.
_MOST_WORDS: Final = 6
#: A longer entry is left out unread: six texts for each of its words would take much memory.
_MOST_CHARACTERS: Final = 1 << 20
#: The words that pandas and Spark write for any frame. Only other words are compared with the values.
_USUAL: Final = frozenset(
    """
    RangeIndex range None null true false struct name type fields nullable metadata string integer long short byte
    double float boolean binary date timestamp pandas numpy pyarrow unicode object int8 int16 int32 int64 uint8
    uint16 uint32 uint64 float32 float64 bool bytes datetime datetimetz categorical empty mixed UTF-8 library
    version kind start stop step index_columns column_indexes columns creator attributes field_name pandas_type
    numpy_type encoding str
    """.lower().split()
)


def without_values(schema: Any, values: Callable[[], Iterable[Any]]) -> tuple[Any, list[str]]:
    """Returns ``schema`` less the entries of its metadata, and of its fields', that have one of the values; and their keys.

    ``values``: arrays of text, or dictionaries of text, with all values. It is called if something in the metadata may be one.
    """
    known = _USUAL.union(_alike(pa.array([*USUAL_NULLS, *schema.names], pa.large_utf8())).to_pylist())
    said: dict[str, set[str]] = {}
    left_out: set[str] = set()
    for key, text in _entries(schema):
        if len(text) > _MOST_CHARACTERS:
            left_out.add(key)
            continue
        parts = {part.encode(errors="replace").decode() for part in _parts(text, known)}  # JSON may have lone surrogates
        said.setdefault(key, set()).update(_alike(pa.array(sorted(parts), pa.large_utf8())).to_pylist())
    asked = {part for parts in said.values() for part in parts} - known - {""}
    found = _found(values(), asked) if asked else set()
    left_out |= {key for key, parts in said.items() if parts & found}
    if not left_out:
        return schema, []
    fields = [_kept_of(field, "", left_out) for field in schema]
    return pa.schema(fields, _kept(schema.metadata, "", left_out)), sorted(left_out)


def _entries(schema: Any) -> Iterator[tuple[str, str]]:
    waiting = [("", schema.metadata), *((f"{field.name}: ", field) for field in schema)]
    while waiting:
        prefix, found = waiting.pop()
        if isinstance(found, pa.Field):
            waiting += [(f"{prefix[:-2]}.{child.name}: ", child) for child in _children(found.type)]
            found = found.metadata
        for key, value in (found or {}).items():
            name = prefix + key.decode(errors="replace")
            yield name, key.decode(errors="replace")
            yield name, value.decode(errors="replace")


def _children(kind: Any) -> list[Any]:
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    of_fields = pa.types.is_struct(kind) or "list" in str(kind).partition("<")[0]
    return [kind.field(place) for place in range(kind.num_fields)] if of_fields else []


def _kept_of(field: Any, prefix: str, left_out: set[str]) -> Any:
    """Returns a field less entries of its metadata, and of that of the fields in it."""
    prefix += field.name
    field = field.with_metadata(_kept(field.metadata, f"{prefix}: ", left_out))
    if not any(key.startswith(f"{prefix}.") for key in left_out):
        return field
    return field.with_type(_of_children(field.type, [_kept_of(each, f"{prefix}.", left_out) for each in _children(field.type)]))


def _of_children(kind: Any, children: list[Any]) -> Any:
    """Returns a type like another one, of these fields."""
    if pa.types.is_struct(kind):
        return pa.struct(children)
    if pa.types.is_map(kind):
        return pa.map_(*children, keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(children[0], kind.list_size)
    of_field = {"list": pa.list_, "large_list": pa.large_list, "list_view": pa.list_view, "large_list_view": pa.large_list_view}
    return of_field[str(kind).partition("<")[0]](children[0])


def _kept(metadata: Any, prefix: str, left_out: set[str]) -> Any:
    kept = {key: value for key, value in (metadata or {}).items() if prefix + key.decode(errors="replace") not in left_out}
    return kept or None


def _parts(text: str, known: frozenset[str], is_decoded: bool = False) -> Iterator[str]:
    """Yields the text, its words and neighbouring words, the same of texts in its JSON, and of what is base64 in it.

    ``known``: words in lower case that say nothing of a value if there are no others beside them.
    """
    yield text
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, (dict, list)):
        yield from _texts_of(read, known, is_decoded)
        return
    yield from (one or other for one, other in _QUOTED.findall(text))
    yield from _runs(text, known)
    if not is_decoded:
        for word in _BASE64.findall(text):
            yield from _parts(_decoded(word), known, is_decoded=True)


def _texts_of(read: Any, known: frozenset[str], is_decoded: bool) -> Iterator[str]:
    waiting = [read]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str):
            yield from _parts(each, known, is_decoded)
        elif each is not None and len(number := json.dumps(each)) >= _LEAST:
            yield number


def _runs(text: str, known: frozenset[str]) -> Iterator[str]:
    """Yields the words of a text, and as many side by side as may be a value, also without what ends a sentence or a time."""
    words = [(match.start(), match.end(), match[0].lower() not in known) for match in _WORD.finditer(text)]
    for place, (start, end, tells) in enumerate(words):
        first = max(0, place + 1 - _MOST_WORDS)
        seconds = _SECONDS.fullmatch(text, start, end)
        ends = {end, start + len(text[start:end].rstrip(".!?")), *([max(seconds.end(1), seconds.end(2))] if seconds else [])}
        for begin, _, other_tells in reversed(words[first : place + 1]):
            tells = tells or other_tells
            if tells:
                yield from (text[begin:stop] for stop in ends if stop - begin >= _LEAST)


def _decoded(word: str) -> str:
    """Returns the text whose base64 a word is; nothing if it is no text's."""
    bare = word.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except ValueError:
        return ""


def _alike(texts: Any) -> Any:
    """Returns texts so that those are equal which differ in case, in what is between words, and in the T of a time."""
    texts = pc.utf8_lower(pc.utf8_upper(texts))
    texts = pc.replace_substring_regex(texts, r"(\d)t(\d\d:)", r"\1 \2")
    return pc.utf8_trim(pc.replace_substring_regex(texts, _BETWEEN_WORDS, " "), " ")


def _found(values: Iterable[Any], asked: set[str]) -> set[str]:
    """Returns those of ``asked`` that are like one of the values."""
    wanted = pa.array(sorted(asked), pa.large_utf8())
    found: set[str] = set()
    for column in values:
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        texts = _alike(texts.cast(pa.large_utf8()))
        found.update(texts.filter(pc.is_in(texts, wanted)).unique().to_pylist())
    return found
