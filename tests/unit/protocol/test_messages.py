"""The codec between nodes: what goes in comes out, and nothing else is taken for a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.protocol import messages
from quorumvault.protocol.messages import AnyReply, AnyRequest
from quorumvault.protocol.views import View

disks = st.binary(min_size=16, max_size=16)
counts = st.integers(0, 2**63)
epochs = st.integers(0, 2**32 - 1)
views = st.builds(View, counts, disks, st.fixed_dictionaries({"n1": disks, "n2": disks, "n3": disks}))
round_ids = st.builds(messages.RoundId, disks, st.binary(min_size=8, max_size=8), counts)
common = {"round": round_ids, "view": st.tuples(counts, disks)}


def columns(*cells: st.SearchStrategy[object]) -> st.SearchStrategy[list[list[object]]]:
    """Parallel columns: equally long, one for each kind of cell."""
    rows = st.lists(st.tuples(*cells), max_size=5)
    return rows.map(lambda rows: [list(column) for column in zip(*rows, strict=True)] or [[] for _ in cells])


def filled(message: Callable[..., Any], *parts: Iterable[object]) -> Any:
    """A message with the fields of all parts, in their order."""
    return message(*chain(*parts))


blob = st.binary(max_size=40)
heads = st.tuples(round_ids, common["view"])
requests = st.one_of(
    st.builds(
        lambda head, body, columns, name: filled(messages.Put, head, body, columns, [name]),
        heads,
        st.tuples(disks, epochs, st.text(max_size=5), st.binary(max_size=11)),
        columns(blob, blob),
        st.text(max_size=5),
    ),
    st.builds(lambda head, owner, columns: filled(messages.Get, head, [owner], columns), heads, disks, columns(epochs, blob)),
    st.builds(
        lambda head, owner, columns: filled(messages.WriteBack, head, [owner], columns),
        heads,
        st.text(max_size=5),
        columns(epochs, blob, blob),
    ),
    st.builds(messages.ReadEpoch, **common, owner=disks),
    st.builds(messages.RaiseEpoch, **common, owner=disks, epoch=epochs),
    st.builds(messages.AskSums, **common, groups=st.lists(counts)),
    st.builds(messages.AskListing, **common, first=counts, end=counts),
    st.builds(messages.Fetch, **common, places=st.lists(blob)),
    st.builds(messages.AskRegisters, **common, after=blob),
)
replying = {**common, "disk": disks}
replies = st.one_of(
    st.builds(
        messages.Ack, **replying, incarnation=counts, sequence=counts, refused=st.dictionaries(counts, st.binary(max_size=20))
    ),
    st.builds(messages.Stale, **replying, epoch=epochs),
    st.builds(messages.Holds, **replying, records=st.lists(st.none() | st.binary(max_size=20)), unknown=st.lists(counts)),
    st.builds(messages.EpochIs, **replying, epoch=epochs),
    st.builds(messages.OtherView, **replying, current=views),
    st.builds(messages.NotVoting, **replying, full=st.booleans()),
    st.builds(messages.Overflow, **replying),
    st.builds(messages.Sums, **replying, sums=st.none() | blob),
    st.builds(
        lambda head, columns, unreadable: filled(messages.Listing, head, columns, [unreadable]),
        st.tuples(round_ids, common["view"], disks, counts),
        columns(blob, blob),
        st.lists(counts),
    ),
    st.builds(
        messages.Fetched,
        **replying,
        records=st.lists(st.none() | blob),
        names=st.dictionaries(disks, st.text(max_size=5)),
    ),
    st.builds(
        lambda head, columns: messages.Registers(*head, *columns),
        st.tuples(round_ids, common["view"], disks),
        columns(disks, st.text(max_size=5), epochs, st.text(max_size=5)),
    ),
)


@given(requests)
def test_requests_come_back(request: AnyRequest) -> None:
    assert messages.decode_request(messages.encode(request)) == request


@given(replies)
def test_replies_come_back(reply: AnyReply) -> None:
    assert messages.decode_reply(messages.encode(reply)) == reply


@given(requests | replies)
def test_the_bytes_are_plain_message_pack(message: AnyRequest | AnyReply) -> None:
    """By another implementation: an array that starts with the tag."""
    fields = msgpack.unpackb(messages.encode(message), strict_map_key=False)
    assert fields[0] == type(message).__struct_config__.tag
    assert len(fields) == 1 + len(message.__struct_fields__)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_reply):
        with pytest.raises(msgspec.DecodeError):
            decode(data)


@given(requests, replies)
def test_a_request_is_no_reply(request: AnyRequest, reply: AnyReply) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode_reply(messages.encode(request))
    with pytest.raises(msgspec.DecodeError):
        messages.decode_request(messages.encode(reply))


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
