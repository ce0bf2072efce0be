"""Targets whose inputs go to the API of a real node, over several connections at a time."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from tests.fuzz import arrow, jsonbodies, rawhttp
from tests.fuzz.exchange import Answers, exchange, in_pieces, pieces_of
from tests.fuzz.nodes import NODE, OverSockets
from tests.fuzz.target import Violation

#: Batches between two checks of what a node tells anybody.
_TELL = 20
#: Headers that a node echoes and logs unchanged. Canaries that land there by chance may be found.
_ECHOED = re.compile(rb"(?i)(?:x-request-id|x-purpose)([^\n]*)")


class HttpTarget(OverSockets):
    batch, at_once = 128, 32
    #: Seconds to wait for an answer. Whole requests get one, however busy the machine is; many others do not.
    patience: ClassVar[float] = 5.0

    def __init__(self) -> None:
        self._count = 0

    def make(self, rng: Random) -> bytes:
        return in_pieces(rng, self.request(rng))

    @abstractmethod
    def request(self, rng: Random) -> bytes:
        """Makes the bytes of one connection."""

    def check(self, inputs: Sequence[bytes]) -> list[str]:
        outcomes = super().check(inputs)
        self._count += 1
        if self._count % _TELL == 0:
            self.nodes.check_told()
        return outcomes

    async def send(self, place: int, data: bytes) -> str:
        host, _, port = self.nodes.cluster.nodes[NODE].address.rpartition(":")
        filled = self.nodes.planted.filled(data)
        if any(self.nodes.planted.found_in(said) for said in _ECHOED.findall(filled)):
            return "not sent"
        answers = await exchange(host, int(port), *pieces_of(filled), self.patience)
        self._judge(place, data, answers)
        return _outcome(answers)

    def _judge(self, place: int, data: bytes, answers: Answers) -> None:
        faults = [status for status in answers.statuses if status >= 500 and status != 503]
        if faults:
            raise Violation(f"status {faults[0]}: {bytes(answers.refusals[-300:])!r}", place)
        if not answers.is_http and b"HEAD" not in data:  # an answer to HEAD has a length, but no body
            raise Violation(f"what was answered is no HTTP: {bytes(answers.raw[:100])!r}", place)
        if b"Traceback" in answers.refusals:
            raise Violation("a traceback in an answer", place)
        if self.nodes.planted.found_in(bytes(answers.refusals)):
            raise Violation(f"something planted is in an answer with status {answers.statuses}", place)


def _outcome(answers: Answers) -> str:
    """The statuses, if there are at most two; else their number."""
    statuses = [str(status) for status in answers.statuses]
    words = "+".join(statuses) if len(statuses) <= 2 else f"many, {statuses[-1]} last"
    return words or ("closed" if answers.is_closed else "nothing")


class RawHttp(HttpTarget):
    """Bytes that are not HTTP, or almost HTTP."""

    patience = 0.25

    def request(self, rng: Random) -> bytes:
        return rawhttp.connection(rng)


class JsonOverHttp(HttpTarget):
    """Whole requests, several on one connection."""

    def request(self, rng: Random) -> bytes:
        requests = []
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            path, body = jsonbodies.body(rng)
            requests.append(rawhttp.whole_request(rng, path, b"application/json", body))
        return b"".join(requests)


class ArrowOverHttp(HttpTarget):
    def request(self, rng: Random) -> bytes:
        path = rng.choice(("/tokenize", "/detokenize", "/retokenize"))
        body = arrow.corpus(rng)
        if rng.random() < 0.85:
            body = arrow.mutate(rng, body)
        if path != "/tokenize":
            body = body.replace(b"\x05\0\0\0value", b"\x05\0\0\0token")  # the column's name
        return rawhttp.whole_request(rng, path, b"application/vnd.apache.arrow.stream", body)
