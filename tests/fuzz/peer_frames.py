"""TLS between nodes, and the frames inside it, in this process."""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from quorumvault.server.peers.frames import Envelope, FrameError, FrameReader, Kind, frame
from quorumvault.server.tls import TlsError, TlsSession
from tests.fuzz.exchange import in_pieces, pieces_of
from tests.fuzz.mutation import mutate
from tests.fuzz.peer_messages import SAID, WORDS
from tests.fuzz.target import InProcess, Violation
from tests.rigs.certificates import credentials, node_pem

_FRAME_LIMIT: Final = 1 << 20


#: A recorded handshake: the dialler's hello, the listener's whole answer, and the rest from the dialler.
HELLO, ANSWER, FINISH = map(base64.b64decode, Path(__file__).with_name("handshake.txt").read_bytes().split())


def _sides() -> tuple[TlsSession, TlsSession]:
    return (
        TlsSession(credentials(node_pem("n1")).dialling, server_side=False),
        TlsSession(credentials(node_pem("n2")).listening, server_side=True),
    )


class HandshakeSteps(InProcess):
    """Recorded bytes, and mutations of them, give nobody a session: each side draws what the other has to sign."""

    def make(self, rng: Random) -> bytes:
        whole = HELLO + FINISH if rng.random() < 0.6 else ANSWER + rng.randbytes(rng.choice((0, 5)))
        return in_pieces(rng, mutate(rng, whole, (HELLO, ANSWER, FINISH, b"\x16\x03\x03", b"\x00\x01")))

    def check_one(self, data: bytes) -> str:
        pieces, _ = pieces_of(data)
        dialling, listening = _sides()
        dialling.start()
        dialling.outgoing()
        told = {self._given(side, pieces) for side in (dialling, listening)}
        if dialling.established or listening.established:
            raise Violation("a session for who proved nothing")
        return " and ".join(sorted(told))

    def _given(self, side: TlsSession, pieces: Sequence[bytes]) -> str:
        try:
            for piece in pieces:
                side.feed(piece)
                side.outgoing()
        except TlsError as error:
            side.outgoing()
            return str(error)[:40]
        return "waits"


class Frames(InProcess):
    """A stream of frames as it comes out of TLS, from a node that says what no node would say."""

    def make(self, rng: Random) -> bytes:
        """Makes a byte that says where the stream is broken (P: in a payload, S: in its frames), and these bytes."""
        envelopes = [Envelope(rng.choice(list(Kind)), rng.randrange(3), rng.choice(SAID)) for _ in range(rng.choice((1, 1, 3)))]
        if rng.random() < 0.5:
            payload = b"".join(struct.pack(">BQI", kind, number, len(body)) + bytes(body) for kind, number, body in envelopes)
            return b"P" + mutate(rng, payload, WORDS)
        stream = b"".join(frame([envelope]) for envelope in envelopes)
        return b"S" + in_pieces(rng, mutate(rng, stream) if rng.random() < 0.95 else stream)

    def check_one(self, data: bytes) -> str:
        reader = FrameReader(_FRAME_LIMIT)
        if data[:1] == b"P":
            pieces = [struct.pack(">I", len(data) - 1) + data[1:]]
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
