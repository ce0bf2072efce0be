"""A stranger at the peer port of a real node."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from typing import Any

from quorumvault.config.addresses import parse_address
from quorumvault.formats.yaml import load_yaml
from tests.fuzz.exchange import exchange, in_pieces, pieces_of
from tests.fuzz.mutation import mutate
from tests.fuzz.nodes import NODE, Nodes
from tests.fuzz.peer_frames import CONFIRM, HELLO, WELCOME
from tests.fuzz.target import Figures, Target, Violation


class PeerPort(Target):
    """A stranger at the peer port of a real node: not one byte for an answer, whatever it says."""

    batch = 64
    over_sockets = True

    def open(self, stack: ExitStack) -> None:
        self._nodes = stack.enter_context(Nodes())
        self._runner = stack.enter_context(asyncio.Runner())
        content: Any = load_yaml(self._nodes.cluster.directory / "cluster.yaml")
        self._address = parse_address(self._nodes.cluster.directory, "peer", content["nodes"][NODE]["peer"])

    def make(self, rng: Random) -> bytes:
        whole = rng.choice((HELLO, HELLO + CONFIRM, WELCOME, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(60)))
        return in_pieces(rng, mutate(rng, whole, (HELLO, b"QVPEER\x00\x01", bytes(5000))))

    def check(self, inputs: Sequence[bytes]) -> list[str]:
        outcomes = self._runner.run(self._send_all(inputs))
        self._nodes.check()
        return outcomes

    async def _send_all(self, inputs: Sequence[bytes]) -> list[str]:
        return await asyncio.gather(*(self._send(place, data) for place, data in enumerate(inputs)))

    async def _send(self, place: int, data: bytes) -> str:
        pieces, pause = pieces_of(data)
        try:
            answers = await exchange(self._address.host, self._address.port, pieces, pause, http=False)
        except OSError as error:
            return f"no connection ({type(error).__name__})"
        if answers.raw:
            raise Violation(f"a stranger was answered: {bytes(answers.raw[:60])!r}", place)
        return "closed" if answers.is_closed else "waits"

    def figures(self) -> Figures:
        return self._nodes.figures
