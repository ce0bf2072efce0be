"""Arrow streams, in this process, whose memory pool checks the ends of what it gave out."""

from __future__ import annotations

from random import Random

from tests.fuzz import arrow
from tests.fuzz.target import InProcess


class ArrowStreams(InProcess):
    def make(self, rng: Random) -> bytes:
        stream = arrow.corpus(rng)
        return arrow.mutate(rng, stream) if rng.random() < 0.95 else stream

    def check_one(self, data: bytes) -> str:
        return arrow.check(data)
