"""Whatever JSON goes in comes back unchanged: any value, any record, to the letter."""

import functools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.rigs.vault import Rig

encode = msgspec.json.Encoder().encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
integers = st.integers() | st.integers(10**20, 10**40)
values = texts | integers | st.booleans()
#: Numbers as people write them. A float would not preserve the spelling.
NUMBER = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"
spellings = st.from_regex(NUMBER, fullmatch=True, alphabet="0123456789+-.eE")
scalars = st.none() | values.map(encode) | spellings.map(str.encode)


def as_json(part: Any) -> bytes:
    """Compact JSON of a tree whose leaves are already JSON."""
    if isinstance(part, dict):
        return b"{" + b",".join(encode(name) + b":" + as_json(member) for name, member in part.items()) + b"}"
    if isinstance(part, list):
        return b"[" + b",".join(map(as_json, part)) + b"]"
    return b"null" if part is None else bytes(part)


trees = st.recursive(scalars, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(texts, parts, max_size=3), max_leaves=8)
leaves = st.none() | values.map(encode)
records = st.builds(
    lambda rest, configured: {**rest, **configured},
    st.dictionaries(texts, trees, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "ssn": leaves,
            "name": st.fixed_dictionaries({}, optional={"family": leaves, "given": trees}) | st.lists(trees, max_size=2),
            "contacts": st.lists(st.fixed_dictionaries({}, optional={"phone": leaves, "mail": trees}), max_size=3),
        },
    ),
)


@functools.cache
def shared_rig() -> Rig:
    """One vault for all examples: its earlier content must not matter."""
    return Rig()


def post(path: str, body: bytes) -> dict[str, msgspec.Raw]:
    answer = shared_rig().post(path, body)
    assert answer.status_code == 200, answer.text
    members: dict[str, msgspec.Raw] = msgspec.json.decode(answer.content, type=dict[str, msgspec.Raw])
    return members


@given(st.lists(st.none() | values, max_size=12))
def test_values_come_back_with_their_types_and_in_their_order(sent: list[Any]) -> None:
    tokens = post("/tokenize", encode({"values": sent}))["tokens"]
    results = msgspec.json.decode(post("/detokenize", b'{"tokens":%b}' % bytes(tokens))["results"])
    assert results == [{"status": "null"} if value is None else {"status": "ok", "value": value} for value in sent]
    assert [type(result.get("value")) for result in results] == [type(value) for value in sent]


@given(st.lists(records, min_size=1, max_size=4))
def test_records_come_back_to_the_letter(sent: list[Any]) -> None:
    texts = [as_json(record) for record in sent]
    tokenized = post("/tokenize", b'{"records":[%b]}' % b",".join(texts))["records"]
    answer = post("/detokenize", b'{"records":%b}' % bytes(tokenized))
    assert [bytes(text) for text in msgspec.json.decode(answer["records"], type=list[msgspec.Raw])] == texts
    assert bytes(answer["missing"]) == b"[]"
    alone = post("/tokenize", b'{"record":%b}' % texts[0])["record"]
    assert bytes(alone) == bytes(msgspec.json.decode(tokenized, type=list[msgspec.Raw])[0])


@given(st.lists(values, max_size=12), st.lists(values, max_size=12))
def test_a_value_has_one_token_in_whatever_company(one: list[Any], other: list[Any]) -> None:
    tokens = msgspec.json.decode(post("/tokenize", encode({"values": one + other}))["tokens"])
    apart = [msgspec.json.decode(post("/tokenize", encode({"values": part}))["tokens"]) for part in (one, other)]
    assert tokens == apart[0] + apart[1]
    kinds = {(type(value), value) for value in one + other}
    assert len(set(tokens)) == len(kinds)


@given(st.lists(values | spellings.map(lambda text: msgspec.Raw(text.encode())) | st.just([]), max_size=12))
def test_bad_values_leave_the_good_ones_as_they_would_be_alone(sent: list[Any]) -> None:
    answer = post("/tokenize", encode({"values": sent, "on_error": "item"}))
    tokens, errors = msgspec.json.decode(answer["tokens"]), msgspec.json.decode(answer["errors"])
    bad = {error["index"] for error in errors}
    assert [token is None for token in tokens] == [index in bad for index in range(len(sent))]
    good = [value for index, value in enumerate(sent) if index not in bad]
    alone = msgspec.json.decode(post("/tokenize", encode({"values": good}))["tokens"])
    assert [token for token in tokens if token is not None] == alone
