"""Frames: what one side packs the other unpacks, in that order, once, unchanged; anything else ends the connection."""

import itertools
import struct
from collections.abc import Iterable, Sequence

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.protocol.messages import Get, RoundId, decode_request, encode
from quorumvault.server.peers.frames import (
    ENVELOPE_OVERHEAD,
    FRAME_OVERHEAD,
    Envelope,
    FrameError,
    FrameReader,
    FrameWriter,
    Kind,
)

KEY, OTHER_KEY = b"k" * 32, b"K" * 32
LIMIT = 1 << 16

envelopes = st.builds(Envelope, st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=60))
batches = st.lists(st.lists(envelopes, min_size=1, max_size=4), min_size=1, max_size=5)


def plain(received: Iterable[Envelope]) -> list[tuple[int, int, bytes]]:
    return [(kind, correlation, bytes(body)) for kind, correlation, body in received]


def frames(sent: Iterable[Sequence[Envelope]], key: bytes = KEY) -> list[bytes]:
    writer = FrameWriter(key)
    return [b"".join(writer.frame(batch)) for batch in sent]


@given(batches, st.lists(st.integers(0, 2000)))
def test_envelopes_come_out_as_they_went_in_however_the_bytes_are_cut(sent: list[list[Envelope]], places: list[int]) -> None:
    stream = b"".join(frames(sent))
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    reader = FrameReader(KEY, LIMIT)
    received: list[Envelope] = []
    for begin, end in itertools.pairwise(edges):
        received += reader.feed(stream[begin:end])
    assert plain(received) == [tuple(envelope) for batch in sent for envelope in batch]


@given(batches)
def test_a_byte_at_a_time(sent: list[list[Envelope]]) -> None:
    reader = FrameReader(KEY, LIMIT)
    received = [envelope for byte in b"".join(frames(sent)) for envelope in reader.feed(bytes([byte]))]
    assert plain(received) == [tuple(envelope) for batch in sent for envelope in batch]


@given(batches, st.data(), st.integers(1, 255))
def test_of_a_changed_frame_and_all_that_follow_nothing_comes_out(
    sent: list[list[Envelope]], data: st.DataObject, difference: int
) -> None:
    whole = frames(sent)
    victim = data.draw(st.integers(0, len(whole) - 1))
    place = data.draw(st.integers(0, len(whole[victim]) - 1))
    changed = bytearray(whole[victim])
    changed[place] ^= difference
    reader = FrameReader(KEY, LIMIT)
    received: list[Envelope] = []
    try:
        for frame in (*whole[:victim], bytes(changed), *whole[victim + 1 :]):
            received += reader.feed(frame)
    except FrameError:
        pass
    else:
        assert place < 4, "only a length that became larger leaves the reader waiting"
    assert plain(received) == [tuple(envelope) for batch in sent[:victim] for envelope in batch]


@given(batches, st.data())
def test_frames_open_in_their_place_only(sent: list[list[Envelope]], data: st.DataObject) -> None:
    """Repeated, left out, or moved."""
    whole = frames(sent)
    places = list(range(len(whole)))
    order = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=8))
    reader = FrameReader(KEY, LIMIT)
    for expected, place in enumerate(order):
        if place == expected:
            assert plain(reader.feed(whole[place])) == [tuple(envelope) for envelope in sent[place]]
        else:
            with pytest.raises(FrameError, match="not authentic"):
                reader.feed(whole[place])
            break


@given(batches)
def test_the_other_directions_frames_do_not_open(sent: list[list[Envelope]]) -> None:
    with pytest.raises(FrameError, match="not authentic"):
        FrameReader(OTHER_KEY, LIMIT).feed(frames(sent)[0])


@given(batches, st.data())
def test_a_frame_that_is_cut_off_gives_nothing(sent: list[list[Envelope]], data: st.DataObject) -> None:
    (frame, *_) = frames(sent)
    assert FrameReader(KEY, LIMIT).feed(frame[: data.draw(st.integers(0, len(frame) - 1))]) == []


@given(st.integers(LIMIT + 1, 2**32 - 1), st.integers(1, 3))
def test_a_frame_over_the_limit_is_refused_on_its_length_alone(length: int, at: int) -> None:
    claim = struct.pack(">I", length)
    with pytest.raises(FrameError, match=f"more than limits.frame_bytes \\({LIMIT}\\)"):
        FrameReader(KEY, LIMIT).feed(claim)
    reader = FrameReader(KEY, LIMIT)
    assert reader.feed(claim[:at]) == []
    with pytest.raises(FrameError, match=r"limits\.frame_bytes"):
        reader.feed(claim[at:] + bytes(100_000))


def test_a_frame_of_just_the_limit_goes_through() -> None:
    body = bytes(LIMIT - ENVELOPE_OVERHEAD - FRAME_OVERHEAD)
    (frame,) = frames([[Envelope(Kind.REQUEST, 1, body)]])
    assert plain(FrameReader(KEY, LIMIT).feed(frame)) == [(Kind.REQUEST, 1, body)]
    (frame,) = frames([[Envelope(Kind.REQUEST, 1, body + b"?")]])
    with pytest.raises(FrameError):
        FrameReader(KEY, LIMIT).feed(frame)


@given(st.integers(0, 15))
def test_a_frame_shorter_than_its_tag_is_refused(length: int) -> None:
    with pytest.raises(FrameError):
        FrameReader(KEY, LIMIT).feed(struct.pack(">I", length) + bytes(length))


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
def test_an_authentic_frame_has_whole_envelopes_or_is_refused(payload: bytes) -> None:
    sealed = AESGCM(KEY).encrypt(bytes(12), payload, None)
    frame, reader, expected = struct.pack(">I", len(sealed)) + sealed, FrameReader(KEY, LIMIT), split(payload)
    if expected is None:
        with pytest.raises(FrameError, match="ends within an envelope"):
            reader.feed(frame)
    else:
        assert plain(reader.feed(frame)) == expected


def test_the_bytes_are_those_of_the_document() -> None:
    """docs/peer-protocol.md, section 2, implemented from the text; the body by another implementation of MessagePack."""
    request = Get(RoundId(b"d" * 16, b"b" * 8, 7), (1, bytes(16)), b"o" * 16, [1], [b"x" * 20])
    stream = b"".join(frames([[Envelope(Kind.PING, 0, b"\xc0")], [Envelope(Kind.REQUEST, 5, encode(request))]]))
    cipher, opened = AESGCM(KEY), list[bytes]()
    while stream:
        length = int.from_bytes(stream[:4])
        nonce = bytes(4) + len(opened).to_bytes(8)
        opened.append(cipher.decrypt(nonce, stream[4 : 4 + length], None))
        stream = stream[4 + length :]
    assert opened[0] == b"\x03" + bytes(8) + bytes([0, 0, 0, 1]) + b"\xc0"
    assert opened[1][:9] == b"\x05" + bytes(7) + b"\x05"
    body = opened[1][13:]
    assert len(body) == int.from_bytes(opened[1][9:13])
    assert msgpack.unpackb(body) == [2, [b"d" * 16, b"b" * 8, 7], [1, bytes(16)], b"o" * 16, [1], [b"x" * 20]]


def test_messages_are_decoded_from_the_frame_without_a_copy_in_between() -> None:
    request = Get(RoundId(b"d" * 16, b"b" * 8, 7), (1, bytes(16)), b"o" * 16, [1], [b"x" * 20])
    (received,) = FrameReader(KEY, LIMIT).feed(frames([[Envelope(Kind.REQUEST, 1, encode(request))]])[0])
    assert isinstance(received.body, memoryview)
    assert decode_request(received.body) == request


def test_a_repr_shows_no_body() -> None:
    assert repr(Envelope(Kind.REPLY, 1, b"whole token")) == "<kind 6, 11 bytes>"
