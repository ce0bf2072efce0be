"""A stranger at the peer port of a real node."""

from contextlib import ExitStack
from random import Random
from typing import Any

from quorumvault.config.addresses import parse_address
from quorumvault.formats.yaml import load_yaml
from tests.fuzz.exchange import exchange, in_pieces, pieces_of
from tests.fuzz.mutation import mutate
from tests.fuzz.nodes import NODE, OverSockets
from tests.fuzz.peer_frames import ANSWER, FINISH, HELLO
from tests.fuzz.target import Violation

#: The most bytes of a listener's hello and certificate: anything more is a message.
_HANDSHAKE_BYTES = 2000


class PeerPort(OverSockets):
    """A stranger at the peer port of a real node: whatever it says, it gets a handshake or an alert, and no message."""

    batch = at_once = 64

    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        content: Any = load_yaml(self.nodes.cluster.directory / "cluster.yaml")
        self._address = parse_address(self.nodes.cluster.directory, "peer", content["nodes"][NODE]["peer"])

    def make(self, rng: Random) -> bytes:
        whole = rng.choice((HELLO, HELLO + FINISH, ANSWER, b"GET / HTTP/1.1\r\n\r\n", b"QVPEER\x00\x01" + bytes(48)))
        return in_pieces(rng, mutate(rng, whole, (HELLO, b"\x16\x03\x01", bytes(5000))))

    async def send(self, place: int, data: bytes) -> str:
        answers = await exchange(self._address.host, self._address.port, *pieces_of(data), http=False)
        if len(answers.raw) > _HANDSHAKE_BYTES:
            raise Violation(f"a stranger was answered {len(answers.raw)} bytes", place)
        return "closed" if answers.is_closed else "waits"
