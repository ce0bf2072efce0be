"""The handshake: both sides prove the cluster secret, or nothing comes of it, and who lacks it hears nothing."""

import hashlib
import hmac
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.server.peers.handshake import ClusterSecret, Dialling, Handshake, HandshakeError, Listening, Session

SECRET, OTHER_SECRET = ClusterSecret(b"s" * 32), ClusterSecret(b"S" * 32)
HELLO_BYTES, WELCOME_BYTES, CONFIRM_BYTES = 56, 48, 16

secrets = st.binary(min_size=32, max_size=32).map(ClusterSecret)
nonces = st.binary(min_size=32, max_size=32)


def fed(side: Handshake, pieces: Iterable[bytes]) -> tuple[bytes, Session | None, bytes]:
    """What a side sends, its session, and the rest, after these pieces."""
    sent, session, rest = b"", None, b""
    for piece in pieces:
        if session is not None:
            rest += piece
            continue
        step = side.receive(piece)
        sent, session, rest = sent + step.send, step.session, step.rest
    return sent, session, rest


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places (modulo its length)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def recorded(dialler_nonce: bytes = b"d" * 32, listener_nonce: bytes = b"l" * 32) -> tuple[bytes, bytes, bytes]:
    """HELLO, WELCOME and CONFIRM of a true handshake."""
    dialling, listening = Dialling(SECRET, dialler_nonce), Listening(SECRET, listener_nonce)
    hello = dialling.start()
    welcome = listening.receive(hello).send
    return hello, welcome, dialling.receive(welcome).send


@given(secrets, nonces, nonces, st.lists(st.integers(0, 200)), st.binary(max_size=40))
def test_two_that_hold_the_secret_agree_however_the_bytes_are_cut(
    secret: ClusterSecret, dialler_nonce: bytes, listener_nonce: bytes, places: list[int], after: bytes
) -> None:
    dialling, listening = Dialling(secret, dialler_nonce), Listening(secret, listener_nonce)
    assert listening.start() == b""
    welcome, none_yet, _ = fed(listening, cut(dialling.start(), places))
    assert none_yet is None
    confirm, ours, rest = fed(dialling, cut(welcome, places))
    _, theirs, after_confirm = fed(listening, cut(confirm + after, places))
    assert ours is not None
    assert theirs is not None
    assert (ours.sending, ours.receiving) == (theirs.receiving, theirs.sending)
    assert ours.sending != ours.receiving
    assert (rest, after_confirm) == (b"", after)


def test_keys_are_fresh_for_every_connection() -> None:
    keys = set()
    for dialler_nonce, listener_nonce in ((b"1" * 32, b"2" * 32), (b"1" * 32, b"3" * 32), (b"2" * 32, b"1" * 32)):
        dialling, listening = Dialling(SECRET, dialler_nonce), Listening(SECRET, listener_nonce)
        session = dialling.receive(listening.receive(dialling.start()).send).session
        assert session is not None
        keys |= {session.sending, session.receiving}
    assert len(keys) == 6


def test_a_listener_without_the_secret_gets_no_session() -> None:
    """It answers what it can: it cannot check HELLO, and cannot make WELCOME."""
    dialling = Dialling(SECRET, b"d" * 32)
    impostor = Listening(OTHER_SECRET, b"l" * 32)
    welcome = impostor.receive(Dialling(OTHER_SECRET, b"d" * 32).start()).send
    with pytest.raises(HandshakeError, match="did not prove"):
        dialling.receive(welcome)


@given(st.integers(0, HELLO_BYTES + WELCOME_BYTES + CONFIRM_BYTES - 1), st.integers(1, 255))
def test_no_byte_of_the_three_messages_may_change(place: int, difference: int) -> None:
    listening, dialling = Listening(SECRET, b"l" * 32), Dialling(SECRET, b"d" * 32)
    sides: tuple[Handshake, ...] = (listening, dialling, listening)
    for side, message in zip(sides, recorded(), strict=True):
        if 0 <= place < len(message):
            changed = message[:place] + bytes([message[place] ^ difference]) + message[place + 1 :]
            with pytest.raises(HandshakeError):
                side.receive(changed)
            return
        side.receive(message)
        place -= len(message)


@given(nonces.filter(lambda nonce: nonce != b"l" * 32))
def test_a_recorded_dialler_is_worth_a_nonce_and_no_more(fresh: bytes) -> None:
    hello, _, confirm = recorded()
    listening = Listening(SECRET, fresh)
    step = listening.receive(hello)
    assert step.session is None
    assert len(step.send) == WELCOME_BYTES
    with pytest.raises(HandshakeError):
        listening.receive(confirm)


@given(nonces.filter(lambda nonce: nonce != b"d" * 32))
def test_a_recorded_listener_convinces_nobody(fresh: bytes) -> None:
    with pytest.raises(HandshakeError):
        Dialling(SECRET, fresh).receive(recorded()[1])


def test_what_a_side_said_does_not_come_back_to_it_as_the_others_words() -> None:
    hello, welcome, confirm = recorded()
    for echoed in (hello, hello[8:], welcome[::-1], confirm * 3):
        with pytest.raises(HandshakeError):
            Dialling(SECRET, b"d" * 32).receive(echoed[:WELCOME_BYTES])
    listening = Listening(SECRET, b"l" * 32)
    listening.receive(hello)
    with pytest.raises(HandshakeError):
        listening.receive(welcome)


@given(st.binary(min_size=1, max_size=300).filter(lambda data: not b"QVPEER\0\1".startswith(data[:8])))
def test_a_client_of_another_kind_is_dropped_at_its_first_wrong_byte(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        Listening(SECRET, b"l" * 32).receive(data)


def test_another_version_is_told_apart_from_another_kind() -> None:
    with pytest.raises(HandshakeError, match="version 1"):
        Listening(SECRET, b"l" * 32).receive(b"QVPEER\0\2")
    with pytest.raises(HandshakeError, match="no node"):
        Listening(SECRET, b"l" * 32).receive(b"GET /livez HTTP/1.1\r\n\r\n")


def test_no_more_than_a_hello_is_taken_from_a_stranger() -> None:
    hello = recorded()[0]
    listening = Listening(SECRET, b"l" * 32)
    assert listening.receive(hello[:-1]).send == b""
    with pytest.raises(HandshakeError, match="more than"):
        listening.receive(hello[-1:] + b"?")


def test_secrets_and_nonces_have_their_length() -> None:
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            ClusterSecret(bytes(length))
        with pytest.raises(ValueError, match="32 bytes"):
            Dialling(SECRET, bytes(length))
        with pytest.raises(ValueError, match="32 bytes"):
            Listening(SECRET, bytes(length))


def test_no_repr_shows_a_key() -> None:
    dialling, listening = Dialling(SECRET, b"d" * 32), Listening(SECRET, b"l" * 32)
    step = dialling.receive(listening.receive(dialling.start()).send)
    assert step.session is not None
    for shown in (SECRET, step, step.session, dialling, listening):
        for key in (b"s" * 32, step.session.sending, step.session.receiving):
            assert repr(key)[2:-1] not in repr(shown)
            assert key.hex() not in repr(shown)


def hkdf(secret: bytes, info: bytes, blocks: int) -> bytes:
    """RFC 5869 with SHA-256 and no salt, written out a second time."""
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    output = block = b""
    for counter in range(1, blocks + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
    return output


@given(st.binary(min_size=32, max_size=32), nonces, nonces)
def test_the_bytes_are_those_of_the_document(secret: bytes, dialler_nonce: bytes, listener_nonce: bytes) -> None:
    """docs/peer-protocol.md, section 1, implemented from the text."""

    def tag(key: bytes, said: bytes) -> bytes:
        return hashlib.blake2b(said, key=key, digest_size=16).digest()

    opening = b"QVPEER\x00\x01" + dialler_nonce
    hello = opening + tag(hkdf(secret, b"quorumvault/1 peer hello", 1), opening)
    keys = hkdf(secret, b"quorumvault/1 peer session\x00" + dialler_nonce + listener_nonce, 4)
    welcome = listener_nonce + tag(keys[:32], hello + listener_nonce)
    confirm = tag(keys[32:64], hello + welcome)

    dialling, listening = Dialling(ClusterSecret(secret), dialler_nonce), Listening(ClusterSecret(secret), listener_nonce)
    assert (dialling.start(), listening.receive(hello).send) == (hello, welcome)
    step = dialling.receive(welcome)
    assert step.send == confirm
    assert step.session is not None
    assert (step.session.sending, step.session.receiving) == (keys[64:96], keys[96:])
