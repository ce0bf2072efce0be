"""Frames: one side unpacks what the other packs, in the same order; bytes that no side would pack end the connection."""

import itertools
import struct
from collections.abc import Iterable, Sequence

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.protocol.messages import Get, RoundId, decode_request, encode
from quorumvault.server.peers.frames import ENVELOPE_OVERHEAD, Envelope, FrameError, FrameReader, Kind, fits, frame

LIMIT = 1 << 16

envelopes = st.builds(Envelope, st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=60))
batches = st.lists(st.lists(envelopes, min_size=1, max_size=4), min_size=1, max_size=5)


def plain(received: Iterable[Envelope]) -> list[tuple[int, int, bytes]]:
    return [(kind, correlation, bytes(body)) for kind, correlation, body in received]


def frames(sent: Iterable[Sequence[Envelope]]) -> list[bytes]:
    return [frame(batch) for batch in sent]


@given(batches, st.lists(st.integers(0, 2000)))
def test_envelopes_come_out_as_they_went_in_however_the_bytes_are_cut(sent: list[list[Envelope]], places: list[int]) -> None:
    stream = b"".join(frames(sent))
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    reader = FrameReader(LIMIT)
    received: list[Envelope] = []
    for begin, end in itertools.pairwise(edges):
        received += reader.feed(stream[begin:end])
    assert plain(received) == [tuple(envelope) for batch in sent for envelope in batch]


@given(batches)
def test_a_byte_at_a_time(sent: list[list[Envelope]]) -> None:
    reader = FrameReader(LIMIT)
    received = [envelope for byte in b"".join(frames(sent)) for envelope in reader.feed(bytes([byte]))]
    assert plain(received) == [tuple(envelope) for batch in sent for envelope in batch]


@given(batches, st.data())
def test_a_frame_that_is_cut_off_gives_nothing(sent: list[list[Envelope]], data: st.DataObject) -> None:
    (first, *_) = frames(sent)
    assert FrameReader(LIMIT).feed(first[: data.draw(st.integers(0, len(first) - 1))]) == []


@given(st.integers(LIMIT + 1, 2**32 - 1), st.integers(1, 3))
def test_a_frame_over_the_limit_is_refused_on_its_length_alone(length: int, at: int) -> None:
    claim = struct.pack(">I", length)
    with pytest.raises(FrameError, match=f"more than limits.frame_bytes \\({LIMIT}\\)"):
        FrameReader(LIMIT).feed(claim)
    reader = FrameReader(LIMIT)
    assert reader.feed(claim[:at]) == []
    with pytest.raises(FrameError, match=r"limits\.frame_bytes"):
        reader.feed(claim[at:] + bytes(100_000))


def test_a_frame_of_just_the_limit_goes_through() -> None:
    body = bytes(LIMIT - ENVELOPE_OVERHEAD)
    assert fits(body, LIMIT)
    assert plain(FrameReader(LIMIT).feed(frame([Envelope(Kind.REQUEST, 1, body)]))) == [(Kind.REQUEST, 1, body)]
    assert not fits(body + b"?", LIMIT)
    with pytest.raises(FrameError):
        FrameReader(LIMIT).feed(frame([Envelope(Kind.REQUEST, 1, body + b"?")]))


def split(payload: bytes) -> list[tuple[int, int, bytes]] | None:
    """Kind, correlation id and body of each envelope; None if the last one is not whole."""
    found = []
    while payload:
        length = int.from_bytes(payload[9:13])
        if len(payload) < 13 + length:
            return None
        found.append((payload[0], int.from_bytes(payload[1:9]), payload[13 : 13 + length]))
        payload = payload[13 + length :]
    return found


@given(
    st.binary(min_size=1, max_size=40)
    | st.lists(st.tuples(st.binary(min_size=9, max_size=9), st.integers(0, 6), st.binary(max_size=6))).map(
        lambda rough: b"".join(head + length.to_bytes(4) + body for head, length, body in rough)
    )
)
def test_a_frame_has_whole_envelopes_or_is_refused(payload: bytes) -> None:
    whole, reader, expected = struct.pack(">I", len(payload)) + payload, FrameReader(LIMIT), split(payload)
    if expected is None:
        with pytest.raises(FrameError, match="ends within an envelope"):
            reader.feed(whole)
    else:
        assert plain(reader.feed(whole)) == expected


def test_the_bytes_are_those_of_the_document() -> None:
    """Section 2 of docs/peer-protocol.md, implemented from the text. Another MessagePack implementation reads the body."""
    request = Get(RoundId(b"d" * 16, b"b" * 8, 7), (1, bytes(16)), b"o" * 16, [1], [b"x" * 20])
    stream = b"".join(frames([[Envelope(Kind.PING, 0, b"\xc0")], [Envelope(Kind.REQUEST, 5, encode(request))]]))
    opened = list[bytes]()
    while stream:
        length = int.from_bytes(stream[:4])
        opened.append(stream[4 : 4 + length])
        stream = stream[4 + length :]
    assert opened[0] == b"\x03" + bytes(8) + bytes([0, 0, 0, 1]) + b"\xc0"
    assert opened[1][:9] == b"\x05" + bytes(7) + b"\x05"
    body = opened[1][13:]
    assert len(body) == int.from_bytes(opened[1][9:13])
    assert msgpack.unpackb(body) == [2, [b"d" * 16, b"b" * 8, 7], [1, bytes(16)], b"o" * 16, [1], [b"x" * 20]]


def test_messages_are_decoded_from_the_frame_without_another_copy() -> None:
    request = Get(RoundId(b"d" * 16, b"b" * 8, 7), (1, bytes(16)), b"o" * 16, [1], [b"x" * 20])
    (received,) = FrameReader(LIMIT).feed(frames([[Envelope(Kind.REQUEST, 1, encode(request))]])[0])
    assert isinstance(received.body, memoryview)
    assert decode_request(received.body) == request


def test_a_repr_shows_no_body() -> None:
    assert repr(Envelope(Kind.REPLY, 1, b"whole token")) == "<kind 6, 11 bytes>"
