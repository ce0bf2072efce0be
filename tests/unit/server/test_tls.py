"""One side of TLS as bytes: in whatever pieces they come, one side opens what the other sealed, and nothing from anybody else."""

import itertools
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.config.certificates import api_credentials
from quorumvault.server.tls import HANDSHAKE_BYTES, TlsError, TlsSession
from tests.rigs.certificates import DAY, api_context, authority, ca_pem, credentials, node_pem, serial


def sides(dialling: bytes | None = None, listening: bytes | None = None) -> tuple[TlsSession, TlsSession]:
    """The sessions of n1, which dials, and of n2. Certificates that are given replace their own."""
    return (
        TlsSession(credentials(dialling or node_pem("n1")).dialling, server_side=False),
        TlsSession(credentials(listening or node_pem("n2")).listening, server_side=True),
    )


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places (modulo its length)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def shake_hands(dialling: TlsSession, listening: TlsSession, places: Iterable[int] = ()) -> None:
    """Pass each side's bytes to the other until both are established, or until one raises."""
    dialling.start()
    for _ in range(3):
        for one, other in ((dialling, listening), (listening, dialling)):
            for piece in cut(one.outgoing(), places):
                other.feed(piece)


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=70_000), min_size=1, max_size=3), st.lists(st.integers(0, 100_000), max_size=6))
def test_what_is_sealed_is_opened_however_the_bytes_are_cut(sent: list[bytes], places: list[int]) -> None:
    dialling, listening = sides()
    shake_hands(dialling, listening, places)
    for one, other in ((dialling, listening), (listening, dialling)):
        stream = b"".join(one.seal(data) for data in sent)
        opened = b""
        for piece in cut(stream, places):
            other.feed(piece)
            opened += other.read_all()
        assert opened == b"".join(sent)


def test_each_side_sees_whose_certificate_the_other_has() -> None:
    dialling, listening = sides()
    shake_hands(dialling, listening)
    assert dialling.certificate["subjectAltName"][0] == ("URI", "quorumvault://c/n2")
    assert int(listening.certificate["serialNumber"], 16) == serial(node_pem("n1"))


@settings(max_examples=30)
@given(st.integers(0, 5000), st.integers(1, 255))
def test_no_byte_may_change_on_its_way(place: int, difference: int) -> None:
    dialling, listening = sides()
    shake_hands(dialling, listening)
    sealed = bytearray(dialling.seal(b"x" * 4000) + dialling.seal(b"y" * 900))
    sealed[place % len(sealed)] ^= difference
    listening.feed(bytes(sealed))
    opened = b""
    buffer = memoryview(bytearray(16384))
    with pytest.raises(TlsError):  # noqa: PT012 - a length that became larger waits for more bytes, which come
        while count := listening.read_into(buffer):
            opened += bytes(buffer[:count])
        listening.feed(dialling.seal(b"z" * 16384) * 5)
        while listening.read_into(buffer):
            pass
    assert opened in (b"", b"x" * 4000)


def test_what_is_played_again_or_comes_back_does_not_open() -> None:
    for back in (False, True):
        dialling, listening = sides()
        shake_hands(dialling, listening)
        sealed = dialling.seal(b"once")
        if back:
            dialling.feed(sealed)
            with pytest.raises(TlsError):
                dialling.read_all()
        else:
            listening.feed(sealed)
            assert listening.read_all() == b"once"
            listening.feed(sealed)
            with pytest.raises(TlsError):
                listening.read_all()


@pytest.mark.parametrize(
    ("pem", "words", "told"),
    [
        (node_pem("n1", ca="other"), "not among those trusted", "of a CA that is not trusted there"),
        (node_pem("n1", begins=-9 * DAY, days=3), "has expired: renew it", "it has expired"),
        (node_pem("n1", begins=DAY), "not valid yet: do the clocks", "not valid there; the clocks"),
    ],
    ids=["another CA", "expired", "not yet"],
)
def test_who_is_refused_hears_why(pem: bytes, words: str, told: str) -> None:
    dialling, listening = sides(dialling=pem)
    dialling.start()
    listening.feed(dialling.outgoing())
    dialling.feed(listening.outgoing())
    assert dialling.established  # it trusts the listener, but does not know yet whether the listener trusts it
    with pytest.raises(TlsError, match=words):
        listening.feed(dialling.outgoing())
    assert not listening.established
    dialling.feed(listening.outgoing())
    with pytest.raises(TlsError, match=told) as heard:
        dialling.read_all()
    assert heard.value.told


def test_who_shows_no_certificate_is_refused() -> None:
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.check_hostname = False
    dialling.load_verify_locations(cadata=ca_pem(authority("c")).decode())
    listening = TlsSession(credentials(node_pem("n2")).listening, server_side=True)
    session = TlsSession(dialling, server_side=False)
    session.start()
    listening.feed(session.outgoing())
    session.feed(listening.outgoing())
    with pytest.raises(TlsError, match="showed no certificate"):
        listening.feed(session.outgoing())


def test_bytes_before_the_proof_are_bounded_and_those_after_it_are_not() -> None:
    endless = node_pem("n1") + ca_pem(authority("c")) * 200
    dialling, listening = sides(dialling=endless)
    dialling.start()
    listening.feed(dialling.outgoing())
    dialling.feed(listening.outgoing())
    chain = dialling.outgoing()
    assert len(chain) > HANDSHAKE_BYTES
    with pytest.raises(TlsError, match="before it had proved itself"):
        listening.feed(chain)
    listening = TlsSession(api_context(), server_side=True)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    dialling = TlsSession(client, server_side=False)
    dialling.start()
    listening.feed(dialling.outgoing())
    dialling.feed(listening.outgoing())
    at_once = dialling.outgoing() + dialling.seal(bytes(3 * HANDSHAKE_BYTES))
    listening.feed(at_once)
    assert len(listening.read_all()) == 3 * HANDSHAKE_BYTES


@pytest.mark.parametrize("length", [16 * 1024 + 1, 120_000, 2**24 - 1])
@pytest.mark.parametrize("at", [1, 4, 5, 8, 9])
def test_a_hello_that_announces_too_much_is_refused_at_its_head(length: int, at: int) -> None:
    """OpenSSL would allocate memory for the whole message, for each of a thousand strangers."""
    said = b"\x16\x03\x01\x40\x00\x01" + length.to_bytes(3) + bytes(5000)
    _, listening = sides()
    if at < 9:
        listening.feed(said[:at])
        said = said[at:]
    with pytest.raises(TlsError, match="announces a first message of more than 16384 bytes"):
        listening.feed(said)


def retrying() -> tuple[TlsSession, TlsSession]:
    """A client whose guess of a key exchange group the server does not support, so that the server asks for a second hello."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), api_credentials(node_pem("n1"), None).context
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server.set_ecdh_curve("secp384r1")
    return TlsSession(client, server_side=False), TlsSession(server, server_side=True)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 100_000), max_size=6))
def test_a_second_hello_is_taken_however_it_is_cut(places: list[int]) -> None:
    dialling, listening = retrying()
    dialling.start()
    first = dialling.outgoing()
    for piece in cut(first, places):
        listening.feed(piece)
    retry = listening.outgoing()
    assert b"\xcf\x21\xad\x74\xe5\x9a" in retry[:20]
    dialling.feed(retry)
    assert not dialling.established
    shake_hands(dialling, listening, places)
    assert dialling.established
    assert listening.take(dialling.seal(b"data")) == b"data"


CHANGE = b"\x14\x03\x03\x00\x01\x01"


@pytest.mark.parametrize("between", [b"", CHANGE, CHANGE * 3])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_second_hello_that_announces_too_much_is_refused_at_its_head(between: bytes, at_once: bool) -> None:
    dialling, listening = retrying()
    dialling.start()
    said = dialling.outgoing(), between, b"\x16\x03\x03\x40\x00\x01" + (120_000).to_bytes(3)
    with pytest.raises(TlsError, match="announces a first message of more than 16384 bytes"):  # noqa: PT012 - by pieces
        for piece in (b"".join(said),) if at_once else said:
            listening.feed(piece)


def _with_more(hello: bytes) -> bytes:
    return hello[:3] + (len(hello) - 1).to_bytes(2) + hello[5:] + b"\x01\x01\xd4\xc0"


def _in_bits(hello: bytes) -> bytes:
    return hello[:3] + b"\x00\x04" + hello[5:9] + b"\x16\x03\x01\x00\x01\x03" * 20


@pytest.mark.parametrize(("change", "words"), [(_with_more, "says more behind its first"), (_in_bits, "in more than 16 pieces")])
def test_nothing_hides_behind_a_hello_or_in_its_pieces(change: Callable[[bytes], bytes], words: str) -> None:
    dialling, listening = sides()
    dialling.start()
    with pytest.raises(TlsError, match=words):
        listening.feed(change(dialling.outgoing()))


def test_a_hello_may_come_in_two_records() -> None:
    dialling, listening = sides()
    dialling.start()
    whole = dialling.outgoing()
    listening.feed(whole[:3] + b"\x00\x64" + whole[5:105] + whole[:3] + (len(whole) - 105).to_bytes(2) + whole[105:])
    assert listening.outgoing()


def test_a_hello_in_records_that_hide_its_length_is_refused() -> None:
    _, listening = sides()
    with pytest.raises(TlsError, match="hides how long it is"):
        listening.feed(b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x40\x00" + b"\x01\xd4\xc0" + bytes(2000))


class Watched:
    """Wraps OpenSSL, and records the most bytes that ever waited in each of a session's buffers, which do not shrink."""

    def __init__(self, session: TlsSession) -> None:
        self.session, self.tls, self.most_in, self.most_out = session, session._tls, 0, 0
        session._tls = self  # type: ignore[assignment]

    def write(self, data: memoryview) -> int:
        written = self.tls.write(data)
        self.most_out = max(self.most_out, self.session._outgoing.pending)
        return written

    def read(self, *given: Any) -> Any:
        self.most_in = max(self.most_in, self.session._incoming.pending)
        return self.tls.read(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tls, name)


def test_much_at_once_leaves_no_large_buffer() -> None:
    dialling, listening = sides()
    shake_hands(dialling, listening)
    one, other = Watched(dialling), Watched(listening)
    data = bytes(1 << 20)
    assert listening.take(dialling.seal(data)) == data
    assert 0 < one.most_out < 17 * 1024
    assert 0 < other.most_in < 34 * 1024


def test_new_keys_again_and_again_end_the_session(tmp_path: Path) -> None:
    listening, client = by_hand(tmp_path)
    flood = b"".join(client.update() for _ in range(3000))
    with pytest.raises(TlsError, match="sent 32768 bytes of TLS with nothing in them"):
        listening.take(flood)
    assert len(listening.outgoing()) < 34 * 1024


def test_new_keys_between_bytes_of_the_stream_are_taken(tmp_path: Path) -> None:
    listening, client = by_hand(tmp_path)
    for _ in range(3):
        updates = b"".join(client.update() for _ in range(900))
        assert listening.take(updates + client.record(b"x", 23)) == b"x"


class ByHand:
    """The records of a client, sealed by hand (RFC 8446, 5.2 and 7), because the ssl module cannot ask for new keys."""

    def __init__(self, secret: bytes) -> None:
        self._secret, self._sequence = secret, 0

    def update(self) -> bytes:
        """A record that changes to new keys, and asks the other side to do the same."""
        made = self.record(b"\x18\x00\x00\x01\x01", 22)
        self._secret, self._sequence = self._expanded(b"traffic upd", 48), 0
        return made

    def record(self, content: bytes, kind: int) -> bytes:
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        nonce = int.from_bytes(self._expanded(b"iv", 12)) ^ self._sequence
        self._sequence += 1
        return head + AESGCM(self._expanded(b"key", 32)).encrypt(nonce.to_bytes(12), content + bytes([kind]), head)

    def _expanded(self, label: bytes, length: int) -> bytes:
        info = length.to_bytes(2) + bytes([len(label) + 6]) + b"tls13 " + label + b"\x00"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)


def by_hand(tmp_path: Path) -> tuple[TlsSession, ByHand]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.keylog_filename = str(tmp_path / "keys")
    dialling, listening = TlsSession(context, server_side=False), TlsSession(api_context(), server_side=True)
    shake_hands(dialling, listening)
    assert dialling._tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"  # type: ignore[index]
    (line,) = [line for line in (tmp_path / "keys").read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
    return listening, ByHand(bytes.fromhex(line.split()[2]))


def test_an_end_is_told() -> None:
    dialling, listening = sides()
    shake_hands(dialling, listening)
    last = dialling.seal(b"last")
    listening.feed(last + dialling.end())
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: listening.read_into(buffer)]) == b"last"
    with pytest.raises(TlsError, match="closed by the other side"):
        listening.read_into(buffer)
    assert listening.ended
