"""JSON bodies for the operations in the OpenAPI document: what it allows, then what it does not, then what is not JSON.

schema -> a value that fits -> some members replaced, moved or repeated -> spelled in one of many ways -> bytes
"""

import functools
import json
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from quorumvault.server.http.openapi import document
from tests.fuzz.canaries import TOKEN_PLACES, VALUE
from tests.fuzz.mutation import mutate

#: Texts that have a meaning somewhere.
_TEXTS = (
    *(VALUE, f"{VALUE} ", "", "x", "999-17-5017", "é", "e\u0301", "\u0000", "\ufeff", "𝄞", '"', "\\", "null", "1e5", "\u2028"),
    *(place.decode() for place in TOKEN_PLACES),
    *("qv_1_" + "0" * 48, "qv_4294967296_" + "a" * 48, "qv_01_" + "a" * 48, "qv_1_" + "A" * 48, "QV_1_" + "a" * 48),
)
#: Names on paths to configured fields, and some others.
_NAMES = ("ssn", "name", "family", "contacts", "phone", "id", "", "values", "tokens", "records", "__proto__", "$", "ssn ")
#: JSON texts that parsers treat differently.
_ODD = (
    *("0", "-0", "1", "-1", "1.0", "1.10", "1e400", "-1E-400", "9007199254740993", "18446744073709551616", "1" * 30, "9" * 5000),
    *("null", "true", "false", "{}", "[]", "[[]]", '{"":{}}', "[1,2,[3]]", '{"a":1,"a":2}', '{"ssn":"1","ssn":"2"}'),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\/"', '"\\x"', '"' + "x" * 70_000 + '"'),
    *("[" * 63 + "]" * 63, "[" * 65 + "]" * 65, '{"a":' * 64 + "1" + "}" * 64, "[" * 3000 + "]" * 3000),
    *("NaN", "Infinity", "01", "+1", ".5", "1.", "'x'", "tru", "", ",", "/**/1", "\t1\n"),
)
_WORDS = tuple(word.encode("utf-8", "surrogatepass") for word in (*_ODD, "{", "}", "[", "]", '"', ":", ",", "\\", "\\u", VALUE))
_JUNK = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\x00", b"\x1f", b"\xc3")


class Spelled(NamedTuple):
    """JSON text, used unchanged; it may not be valid JSON."""

    text: str


@functools.cache
def _operations() -> tuple[Mapping[str, Any], list[tuple[str, Any]]]:
    """Returns the document, and each path that takes JSON with its schema."""
    whole = document()
    bodies = [
        (path, post["requestBody"]["content"]["application/json"]["schema"])
        for path, item in whole["paths"].items()
        if (post := item.get("post")) and "requestBody" in post
    ]
    return whole, bodies


def body(rng: Random) -> tuple[str, bytes]:
    """Returns the path of an operation, and a body for it, good or bad."""
    whole, operations = _operations()
    path, schema = rng.choice(operations)
    value = fitting(rng, schema, whole)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        value = changed(rng, value)
    text = spelled(rng, value).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        text = mutate(rng, text, _WORDS + _JUNK)
    return path, text


def fitting(rng: Random, schema: Any, whole: Mapping[str, Any]) -> Any:
    """Makes a value that the schema allows, of texts and names that have a meaning here."""
    if "$ref" in schema:
        return fitting(rng, whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return fitting(rng, rng.choice(schema["anyOf"]), whole)
    kind = schema.get("type")
    match rng.choice(kind) if isinstance(kind, list) else kind:
        case "object" if "properties" in schema:
            return _object(rng, schema, whole)
        case "object":
            return _record(rng)
        case "array":
            count = rng.choice((0, 1, 1, 2, 3, 5, 40))
            return [fitting(rng, schema["items"], whole) for _ in range(count)]
        case "string":
            return rng.choice(_TEXTS)
        case "integer":
            return rng.choice((schema.get("minimum", 0), 1, 2, 3, 2**31, 2**32, 2**63, 10**40))
        case "boolean":
            return rng.random() < 0.5
    return None


def _object(rng: Random, schema: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    required = [*schema["required"], *(rng.choice(schema["oneOf"])["required"] if "oneOf" in schema else ())]
    others = {name for each in schema.get("oneOf", ()) for name in each["required"]}
    names = [name for name in schema["properties"] if name in required or (name not in others and rng.random() < 0.5)]
    return {name: fitting(rng, schema["properties"][name], whole) for name in names}


def _record(rng: Random) -> dict[str, Any]:
    text = functools.partial(rng.choice, _TEXTS)
    record: dict[str, Any] = {"id": rng.randrange(100), "ssn": text(), "name": {"family": text(), "given": "G"}}
    record["contacts"] = [{"phone": text()} for _ in range(rng.choice((0, 1, 3)))]
    return {name: member for name, member in record.items() if rng.random() < 0.8}


def changed(rng: Random, value: Any) -> Any:
    """Replaces, removes, repeats or renames one member somewhere."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return Spelled(rng.choice(_ODD))
    if isinstance(value, list):
        place = rng.randrange(len(value))
        others = [value[:place] + value[place + 1 :], value + [value[place]] * rng.choice((1, 3, 100))]
        return rng.choice([[*value[:place], changed(rng, value[place]), *value[place + 1 :]], *others])
    name = rng.choice(list(value))
    match rng.randrange(4):
        case 0:
            return {key: each for key, each in value.items() if key != name}
        case 1:
            return value | {rng.choice(_NAMES): value[name]}
        case _:
            return value | {name: changed(rng, value[name])}


def spelled(rng: Random, value: Any) -> str:
    """Writes JSON text in a random spelling: blanks, escapes, a name that occurs twice."""
    blank, ascii_only, twice = rng.choice(("", "", " ", "\n", "\t \r\n")), rng.random() < 0.3, rng.random() < 0.05

    def text(value: Any) -> str:
        match value:
            case Spelled():
                return value.text
            case list():
                return "[" + f",{blank}".join(map(text, value)) + "]"
            case dict():
                members = [f"{text(key)}:{blank}{text(each)}" for key, each in value.items()]
                if twice and members:
                    members.append(rng.choice(members))
                return "{" + f",{blank}".join(members) + "}"
        return json.dumps(value, ensure_ascii=ascii_only)

    return blank + text(value) + blank
