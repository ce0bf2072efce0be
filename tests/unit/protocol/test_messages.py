"""The codec between nodes: a message survives a round trip, and nothing else is taken for a message."""

from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.model import NODE_NAMES
from quorumvault.protocol import messages
from quorumvault.protocol.messages import AnyReply, AnyRequest
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import View, ViewId

counts = st.integers(0, 2**63)
CELLS: dict[Any, st.SearchStrategy[Any]] = {
    bytes: st.binary(max_size=40),
    int: counts,
    ViewId: st.tuples(counts, st.binary(max_size=16)),
    View: st.builds(View, counts, st.binary(max_size=16), st.dictionaries(st.sampled_from(NODE_NAMES), st.binary(max_size=16))),
    Mark: st.builds(Mark, counts, counts),
    messages.KeyId: st.text("abyz27", min_size=1, max_size=32),
    messages.RoundId: st.builds(messages.RoundId, st.binary(max_size=16), st.binary(max_size=8), counts),
}


def valued(kind: Any, rows: int | None = None) -> st.SearchStrategy[Any]:
    """Values of a field's type. A list has exactly ``rows`` items, if given."""
    if kind in CELLS:
        return CELLS[kind]
    parts = get_args(kind)
    if get_origin(kind) is list:
        return st.lists(valued(parts[0]), min_size=rows or 0, max_size=5 if rows is None else rows)
    if get_origin(kind) is tuple:
        return st.lists(valued(parts[0]), max_size=5).map(tuple) if parts[-1] is ... else st.tuples(*map(valued, parts))
    if get_origin(kind) is dict:
        return st.dictionaries(*map(valued, parts), max_size=5)
    return st.one_of(*map(valued, parts)) if parts else st.from_type(kind)


@st.composite
def of_any_kind(draw: st.DrawFn, kinds: Any) -> Any:
    """A message of one of these kinds; its columns are equally long."""
    kind = draw(st.sampled_from(get_args(kinds)))
    rows = draw(st.integers(0, 5))
    types = get_type_hints(kind, include_extras=True)
    fields = kind.__struct_fields__
    return kind(*(draw(valued(types[name], rows if name in kind.columns else None)) for name in fields))


requests, replies = of_any_kind(AnyRequest), of_any_kind(AnyReply)


@given(requests, replies)
def test_a_message_comes_back_and_a_request_is_no_reply(request: AnyRequest, reply: AnyReply) -> None:
    sent, answered = messages.encode(request), messages.encode(reply)
    assert (messages.decode_request(sent), messages.decode_reply(answered)) == (request, reply)
    with pytest.raises(msgspec.DecodeError):
        messages.decode_reply(sent)
    with pytest.raises(msgspec.DecodeError):
        messages.decode_request(answered)


@given(requests | replies)
def test_the_bytes_are_plain_message_pack(message: AnyRequest | AnyReply) -> None:
    """Another MessagePack implementation reads a message as an array that starts with the tag."""
    fields = msgpack.unpackb(messages.encode(message), strict_map_key=False)
    assert fields[0] == type(message).__struct_config__.tag
    assert len(fields) == 1 + len(message.__struct_fields__)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_reply):
        with pytest.raises(msgspec.DecodeError):
            decode(data)


@given(requests | replies)
def test_a_repr_shows_the_kind_alone(message: AnyRequest | AnyReply) -> None:
    assert repr(message) == f"<{type(message).__name__}>"
    assert str(message) == repr(message)
    assert f"{message}" == repr(message)


def test_columns_of_unequal_length_are_no_request() -> None:
    get = messages.Get(messages.RoundId(b"d", b"b", 1), (1, b""), b"o", [1], [b"d"])
    fields = msgpack.unpackb(messages.encode(get), strict_map_key=False)
    with pytest.raises(msgspec.ValidationError, match="differ in length"):
        messages.decode_request(msgpack.packb([*fields[:-1], []]))
