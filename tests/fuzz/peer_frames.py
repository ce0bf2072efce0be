"""The handshake between nodes, and the frames that follow it, in this process."""

import struct
from collections.abc import Sequence
from random import Random
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quorumvault.server.peers.frames import Envelope, FrameError, FrameReader, FrameWriter, Kind
from quorumvault.server.peers.handshake import NONCE_BYTES, ClusterSecret, Dialling, HandshakeError, Listening, Session
from tests.fuzz.exchange import in_pieces, pieces_of
from tests.fuzz.mutation import mutate
from tests.fuzz.peer_messages import SAID, WORDS
from tests.fuzz.target import InProcess, Violation

_SECRET = ClusterSecret(b"s" * 32)
_DIALLER_NONCE, _LISTENER_NONCE = b"d" * NONCE_BYTES, b"l" * NONCE_BYTES
_FRAME_LIMIT: Final = 1 << 20


def _sessions() -> tuple[bytes, bytes, bytes, Session]:
    """What the two sides of a handshake say, HELLO, WELCOME, CONFIRM, and the listener's session."""
    dialling, listening = Dialling(_SECRET, _DIALLER_NONCE), Listening(_SECRET, _LISTENER_NONCE)
    hello = dialling.start()
    welcome = listening.receive(hello).send
    confirm = dialling.receive(welcome).send
    session = listening.receive(confirm).session
    if session is None:
        raise AssertionError
    return hello, welcome, confirm, session


HELLO, WELCOME, CONFIRM, _SESSION = _sessions()


class HandshakeSteps(InProcess):
    """Nobody without the secret gets a session: only who says, byte for byte, what who holds it would say."""

    def make(self, rng: Random) -> bytes:
        whole = HELLO + CONFIRM if rng.random() < 0.6 else WELCOME + rng.randbytes(rng.choice((0, 5)))
        return in_pieces(rng, mutate(rng, whole, (HELLO, WELCOME, CONFIRM, b"QVPEER", b"\x00\x01")))

    def check_one(self, data: bytes) -> str:
        pieces, _ = pieces_of(data)
        said = b"".join(pieces)
        dialled = self._given(Dialling(_SECRET, _DIALLER_NONCE), pieces)
        if (dialled == "open") != said.startswith(WELCOME):
            raise Violation("a dialler and a WELCOME that do not fit each other")
        listened = self._given(Listening(_SECRET, _LISTENER_NONCE), pieces)
        if listened == "open" and not said.startswith(HELLO + CONFIRM):
            raise Violation("a session for who did not say what only a node can say")
        return listened

    def _given(self, side: Dialling | Listening, pieces: Sequence[bytes]) -> str:
        side.start()
        try:
            for piece in pieces:
                if side.receive(piece).session is not None:
                    return "open"
        except HandshakeError:
            return "refused"
        return "waits"


class Frames(InProcess):
    """A stream of frames as a node seals them: broken before it was sealed, and after. What opens is what was sealed."""

    def make(self, rng: Random) -> bytes:
        """A byte that says where it is broken, and what is to be sealed, or was."""
        envelopes = [Envelope(rng.choice(list(Kind)), rng.randrange(3), rng.choice(SAID)) for _ in range(rng.choice((1, 1, 3)))]
        if rng.random() < 0.5:
            payload = b"".join(struct.pack(">BQI", kind, number, len(body)) + bytes(body) for kind, number, body in envelopes)
            return b"P" + mutate(rng, payload, WORDS)
        writer = FrameWriter(_SESSION.receiving)
        stream = b"".join(b"".join(writer.frame([envelope])) for envelope in envelopes)
        return b"S" + in_pieces(rng, mutate(rng, stream) if rng.random() < 0.95 else stream)

    def check_one(self, data: bytes) -> str:
        reader = FrameReader(_SESSION.receiving, _FRAME_LIMIT)
        if data[:1] == b"P":
            pieces = [_sealed(data[1:])]
        else:
            pieces, _ = pieces_of(data[1:])
        count = 0
        try:
            for piece in pieces:
                for envelope in reader.feed(piece):
                    count += 1
                    repr(envelope)
        except FrameError:
            return "refused"
        return f"{min(count, 4)} opened"


def _sealed(payload: bytes) -> bytes:
    """The first frame of a direction with this payload, which may be no envelopes."""
    sealed = AESGCM(_SESSION.receiving).encrypt(bytes(12), payload, None)
    return struct.pack(">I", len(sealed)) + sealed
