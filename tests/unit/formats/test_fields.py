"""The field configuration: which members it finds, checked by a deliberately naive second reader; and what it refuses."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.fields import load_fields
from quorumvault.errors import ConfigError
from quorumvault.formats.fields import MAX_CASES, FieldSet
from quorumvault.formats.json import Document
from quorumvault.formats.jsonpath import Every, FieldPath, PathStep, concrete_path
from tests import ROOT

SAMPLE = ROOT / "conf" / "fields.yaml"

names = st.sampled_from(["a", "b", "c d"])
steps = st.lists(names | st.integers(0, 2) | st.just(Every.ONE), min_size=1, max_size=4)
expressions = st.lists(steps.map(concrete_path), max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.sampled_from(["", "null", "{", "[1]", "é"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3), max_leaves=20
)
records = st.dictionaries(names, values, max_size=3)


def compiled(*expressions: str) -> FieldSet:
    return FieldSet.compile(expressions, "fields.yaml")


def parsed(record: object) -> Document:
    return Document.parse(json.dumps(record).encode())


# The naive reader compares every place of a record with every expression.


def places(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if way:
        yield way, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield from places(member, (*way, key))


def agree(one: PathStep, other: PathStep) -> bool:
    return Every.ONE in (one, other) or (type(one) is type(other) and one == other)


def leads_to(path: FieldPath, way: tuple[str | int, ...]) -> bool:
    return len(path.steps) == len(way) and all(map(agree, path.steps, way))


def can_meet(one: FieldPath, other: FieldPath) -> bool:
    return all(agree(*pair) for pair in zip(one.steps, other.steps, strict=False))


def meets(paths: list[FieldPath]) -> bool:
    return any(can_meet(one, other) for n, one in enumerate(paths) for other in paths[:n])


@given(expressions)
def test_expressions_are_refused_if_two_can_meet_and_only_then(texts: list[str]) -> None:
    try:
        fields = compiled(*texts)
    except ConfigError:
        assert meets([FieldPath.parse(text) for text in texts])
    else:
        assert not meets([FieldPath.parse(text) for text in texts])
        assert fields.paths == tuple(texts)


@st.composite
def field_sets(draw: st.DrawFn) -> FieldSet:
    kept: list[FieldPath] = []
    for text in draw(st.lists(steps.map(concrete_path), min_size=1, max_size=6)):
        path = FieldPath.parse(text)
        if not any(can_meet(path, other) for other in kept):
            kept.append(path)
    return compiled(*(path.text for path in kept))


@given(field_sets(), records)
def test_what_is_found_where_and_in_which_order(fields: FieldSet, record: dict[str, Any]) -> None:
    paths = [FieldPath.parse(text) for text in fields.paths]
    expected = [
        (field, concrete_path(way), value)
        for way, value in places(record)
        for field, path in enumerate(paths)
        if leads_to(path, way) and value is not None
    ]
    found = [(slot.field, slot.path, json.loads(slot.raw)) for slot in fields.find(parsed(record))]
    assert found == expected
    assert [type(value) for _, _, value in found] == [type(value) for _, _, value in expected]


@given(field_sets(), records)
def test_replacing_changes_the_found_members_and_nothing_else(fields: FieldSet, record: dict[str, Any]) -> None:
    paths = [FieldPath.parse(text) for text in fields.paths]
    expected = copy.deepcopy(record)
    for way, value in list(places(record)):
        if value is not None and any(leads_to(path, way) for path in paths):
            holder: Any = expected
            for key in way[:-1]:
                holder = holder[key]
            holder[way[-1]] = concrete_path(way)
    document = parsed(record)
    for slot in fields.find(document):
        slot.replace(slot.path)
    assert json.loads(document.encode()) == expected
    assert list(json.loads(document.encode())) == list(record)


@given(field_sets(), records)
def test_a_concrete_path_finds_exactly_its_slot(fields: FieldSet, record: dict[str, Any]) -> None:
    for slot in fields.find(parsed(record)):
        (again,) = compiled(slot.path).find(parsed(record))
        assert (again.path, again.raw) == (slot.path, slot.raw)


PATIENT = '{"ssn": "1", "contacts": [{"phone": 2}, {}, {"phone":null}, {"phone": "4"}], "patient": {"name": {"family":true}}}'
SPELLED = r'{"a": 1.10, "b":"\u00e9", "c": [1 , 2], "d": {"x":1}, "e": []}'
SIDE_BY_SIDE = "$.a[*].x $.a[2].y $.a[0].y $.a.k.z"
ARRAY = '{"a":[{"x":1,"y":2},{"x":3,"y":4},{"x":5,"y":6}]}'
OTHER_SHAPES = ("{}", '{"a":null}', '{"a":1}', '{"a":"b"}', '{"a":{}}', '{"a":[]}', '{"a":[{}]}', '{"A":{"b":1}}')


@pytest.mark.parametrize(
    ("record", "expressions", "expected"),
    [
        (
            PATIENT,
            "$.patient.name.family $.ssn $.contacts[*].phone",
            '1 $.ssn "1" | 2 $.contacts[0].phone 2 | 2 $.contacts[3].phone "4" | 0 $.patient.name.family true',
        ),
        # A member is found with its exact text; objects and arrays are found too.
        (SPELLED, "$.a $.b $.c[1] $.d $.e", r'0 $.a 1.10 | 1 $.b "\u00e9" | 2 $.c[1] 2 | 3 $.d {"x":1} | 4 $.e []'),
        # [*] matches the members of an object and the elements of an array, also beside an expression for a single one.
        (
            '{"a": {"x y": 1, "z": [2]}, "b": [3, null, 5]}',
            "$.a[*] $.b[*]",
            "0 $.a['x y'] 1 | 0 $.a.z [2] | 1 $.b[0] 3 | 1 $.b[2] 5",
        ),
        (ARRAY, SIDE_BY_SIDE, "0 $.a[0].x 1 | 2 $.a[0].y 2 | 0 $.a[1].x 3 | 0 $.a[2].x 5 | 1 $.a[2].y 6"),
        ('{"a":{"j":{"x":1,"z":2},"k":{"x":3,"z":4}}}', SIDE_BY_SIDE, "0 $.a.j.x 1 | 0 $.a.k.x 3 | 3 $.a.k.z 4"),
        # Single elements come in the order of the array; a name made of digits is not an index.
        ('{"a":[0,1,2]}', "$.a[2] $.a[0] $.a[7]", "1 $.a[0] 0 | 0 $.a[2] 2"),
        ('{"a":{"0":1}}', "$.a[0]", ""),
        ('{"a":[1]}', "$.a['0']", ""),
        # Members that are missing or have another shape are skipped.
        *((record, "$.a.b $.a[1] $['b']", "") for record in OTHER_SHAPES),
    ],
)
def test_what_is_found_in_a_record(record: str, expressions: str, expected: str) -> None:
    slots = compiled(*expressions.split()).find(Document.parse(record.encode()))
    assert " | ".join(f"{slot.field} {slot.path} {slot.raw.decode()}" for slot in slots) == expected


@pytest.mark.parametrize("value", ["qv_1_x", True, False, 42, msgspec.Raw(b"123456789012345678901234567890")])
def test_what_is_put_in_place(value: str | bool | int | msgspec.Raw) -> None:
    document = Document.parse(b'{"n":1.10,"a":[{"b":"x"}]}')
    (slot,) = compiled("$.a[*].b").find(document)
    slot.replace(value)
    assert document.encode() == b'{"n":1.10,"a":[{"b":' + msgspec.json.encode(value) + b"}]}"
    (again,) = compiled("$.a[*].b").find(document)
    assert again.raw == msgspec.json.encode(value)


def test_nothing_of_a_record_shows_in_a_repr() -> None:
    document = Document.parse(b'{"ssn":"secret"}')
    fields = compiled("$.ssn")
    assert "secret" not in repr([document, fields, *fields.find(document)])


# The set as a whole.


@given(st.permutations(["$.a", "$['b c']", "$.d[*].e"]))
def test_the_fingerprint_ignores_order_and_spelling(texts: list[str]) -> None:
    other = compiled("$['a']", "$[\"d\"][*] ['e']", '$["b c"]')
    assert compiled(*texts).fingerprint == other.fingerprint
    assert other.paths == ("$['a']", "$[\"d\"][*] ['e']", '$["b c"]')


@pytest.mark.parametrize(
    "texts", [["$.a"], ["$.a", "$.c"], ["$.a", "$.b", "$.c"], ["$.a.b"], ["$.a", "$['b\\n$.c']"], ["$.A", "$.b"]]
)
def test_another_set_has_another_fingerprint(texts: list[str]) -> None:
    assert compiled(*texts).fingerprint != compiled("$.a", "$.b").fingerprint


def test_a_set_that_would_need_too_many_cases_is_refused() -> None:
    depth = 14
    texts = ["$" + "".join("[0]" if level == own else "[*]" for level in range(depth)) + f".n{own}" for own in range(depth)]
    assert 2**depth > MAX_CASES
    with pytest.raises(ConfigError, match=r"^fields.yaml: fields: paths with fewer \[\*\]"):
        compiled(*texts)
    nested: Any = {f"n{own}": own for own in range(depth)}
    for _ in range(depth - 1):
        nested = [nested]
    found = compiled(*texts[:8]).find(parsed({"x": nested}))
    assert [slot.field for slot in found] == list(range(1, 8))  # the first one asks for an array, but a record is an object


@pytest.mark.parametrize(
    ("expressions", "record", "turns"),
    [
        ("$.a[*].b", {"a": [{f"x{inner}": 1 for inner in range(100)}] * 300}, 27),
        ("$.a.b $[*].c.d", {"a": {f"x{inner}": 1 for inner in range(20_000)}}, 38),
        ("$.a[*].c", {"a": [1] * 20_000}, 19),
    ],
)
def test_members_that_lead_nowhere_count_toward_a_turn(expressions: str, record: object, turns: int) -> None:
    found = list(compiled(*expressions.split()).walk(parsed(record)))
    assert found == [None] * len(found)
    assert len(found) >= turns


# The file.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a mapping with the key `fields`"),
        ("- $.ssn", "a mapping with the key `fields`"),
        ("fields: [$.ssn]\nowner: acme", "owner: is no key of this file"),
        ("other: 1", "other: is no key of this file"),
        ("{}", "fields: a list of one or more"),
        ("fields:", "fields: a list of one or more"),
        ("fields: []", "fields: a list of one or more"),
        ("fields: $.ssn", "fields: a list of one or more"),
        ("fields: {a: $.ssn}", "fields: a list of one or more"),
        ("fields: [$.ssn, 5]", "fields[1]: a JSONPath expression as text"),
        ("fields: [$.ssn, null]", "fields[1]: a JSONPath expression as text"),
        ("fields: [[$.ssn]]", "fields[0]: a JSONPath expression as text"),
        ("fields:\n- $.a: b", "fields[0]: a JSONPath expression as text"),
        ("fields: [ssn]", "fields[0]: 'ssn': a path starts with $"),
        ("fields: [$.a, $..b]", "fields[1]: '$..b': descendants (..) are not taken, write the whole path (at character 2)"),
        ("fields: ['$.a[-1]']", "counts from the start"),
        ("fields: [$]", "fields[0]: '$': $ alone"),
        ("fields: [$.a, $.b, $.a]", "fields[2]: '$.a' is the same as fields[0], '$.a'"),
        ("fields: [$.a, \"$['a']\"]", "fields[1]: \"$['a']\" is the same as fields[0], '$.a'"),
        ("fields: [$.a.b, $.a]", "fields[1]: '$.a' can lead to"),
        ("fields: [$.a, $.a.b]", "fields[1]: '$.a.b' can lead to"),
        ("fields: ['$.a[0]', '$.a[*]']", "fields[1]: '$.a[*]' can lead to"),
        ("fields: ['$.a[*]', $.a.b]", "fields[1]: '$.a.b' can lead to"),
        (
            "fields: [$.x, '$.a[*]', '$.a[0]']",
            "fields[2]: '$.a[0]' can lead to the same member as, or one inside the other's, fields[1], '$.a[*]'; keep one",
        ),
        ("fields: ['$[*].x', '$.a[*]']", "fields[1]: '$.a[*]' can lead to"),
        ("fields: [$.a]\nfields: [$.b]", "line 2: the key 'fields' is there twice"),
        ("fields: [$.a", "line"),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "fields.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_fields(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_fields(tmp_path / "fields.yaml")


def test_the_sample_means_what_it_says() -> None:
    fields = load_fields(SAMPLE)
    columns = ["SSN", "DRIVERS", "PASSPORT", "FIRST", "LAST", "MAIDEN", "ADDRESS", "BIRTHDATE"]
    assert {"$.ssn", "$.patient.name.family", "$.contacts[*].phone", *(f"$.{name}" for name in columns)} <= set(fields.paths)
    row = parsed({name: f"{name}!" for name in ["Id", *columns, "CITY"]})
    assert [slot.path for slot in fields.find(row)] == [f"$.{name}" for name in columns]


def test_a_long_name_is_cut_where_a_path_shows_it() -> None:
    record = b'{"people":{"' + b"x" * 100_000 + b'":{"phone":"1"}}}'
    (slot,) = compiled("$.people[*].phone").find(Document.parse(record))
    assert slot.path == f"$.people.{'x' * 64}….phone"
    slot.replace("2")
