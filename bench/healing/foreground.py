"""The clients' requests while a node heals, and their right answers: new tokens at a steady rate, and all values read back."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event

import msgspec

from bench.healing.report import Answers, ReadBack
from bench.healing.stores import Corpus
from bench.http import LoadFailed, encode
from bench.load import OWNER, beside
from bench.openloop import OpenLoop, Run
from bench.report import percentile
from bench.work import TokensGiven, Values, WrongAnswer
from chaos.testbed.api import Answer, Unanswered
from chaos.testbed.cluster import Cluster

#: Values in one request.
BATCH = 100
#: Tokens in one request of a read-back.
_READ_BATCH = 1_000
#: The longest load: after this time its caller must have gone.
_LONGEST_SECONDS = 1_200.0
#: The pause after a request without an answer.
_RETRY_SECONDS = 0.1

_body = msgspec.json.Encoder().encode
_given = msgspec.json.Decoder(TokensGiven).decode


@dataclass(slots=True)
class Vault:
    """A cluster, and the numbers of the values it must have, as ranges. ``made``: the first number never used."""

    cluster: Cluster
    corpus: Corpus
    made: int
    acknowledged: list[range] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(map(len, self.acknowledged))

    def new_bodies(self, count: int, batch: int) -> Iterator[bytes]:
        """Yields the bodies of ``count`` requests with new values, each encoded when it is due.

        Encoding an hour of requests beforehand would take more memory than the nodes.
        """
        for number in range(count):
            yield _body(Values(self.corpus.values(self.made + number * batch, batch)))

    def accept(self, bodies: Sequence[bytes], batch: int) -> None:
        """Checks the answers to all of these requests, and notes the acknowledged values. Raises WrongAnswer."""
        for number, body in enumerate(bodies):
            self._acknowledge(number, body, batch)
        self.made += batch * len(bodies)

    def settle(self, run: Run, batch: int) -> None:
        """Checks and notes the answers of an open loop, some of which may be refusals. Raises WrongAnswer, LoadFailed."""
        for answer in run.accepted():
            self._acknowledge(answer.request, answer.body, batch)
        self.made += batch * (len(run.answered) + run.unsent + run.broken)

    def _acknowledge(self, request: int, body: bytes, batch: int) -> None:
        first = self.made + request * batch
        if _given(body).tokens != self.corpus.tokens(self.corpus.values(first, batch)):
            raise WrongAnswer("it does not hold that a value has the token that its keys make")
        self.acknowledged.append(range(first, first + batch))

    def batches(self, size: int) -> Iterator[range]:
        """Yields the numbers of all acknowledged values, up to ``size`` at a time."""
        for numbers in self.acknowledged:
            for first in range(numbers.start, numbers.stop, size):
                yield range(first, min(first + size, numbers.stop))


@contextmanager
def foreground(vault: Vault, nodes: Sequence[str], rate: float) -> Iterator[Future[Answers]]:
    """Drives an open loop of new values to some nodes, at ``rate`` requests a second, for the block.

    After the block the future has the answers. Raises LoadFailed if there was no answer with 200, WrongAnswer.
    """
    addresses = [vault.cluster.nodes[name].address for name in nodes]
    bodies = vault.new_bodies(round(rate * _LONGEST_SECONDS) + 1, BATCH)
    requests = (encode("/tokenize", vault.cluster.api_key(OWNER), body) for body in bodies)

    def drive(ended: Event) -> Run:
        with closing(OpenLoop(addresses)) as loop:
            return loop.run(requests, rate, ended.is_set)

    answers: Future[Answers] = Future()
    with beside(drive) as run:
        yield answers
    vault.settle(run.result(), BATCH)
    answers.set_result(_summary(rate, run.result()))


def _summary(rate: float, run: Run) -> Answers:
    latencies = [answer.seconds for answer in run.accepted()]
    return Answers(
        values_per_second=rate * BATCH,
        values=len(latencies) * BATCH,
        median_ms=percentile(latencies, 50) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
        refused=len(run.answered) - len(latencies),
        lost=run.unsent + run.broken,
    )


@contextmanager
def reading(vault: Vault, node: str) -> Iterator[Future[ReadBack]]:
    """Reads everything back through one node repeatedly during the block. After the block the future has the counts."""
    counts: Counter[str] = Counter()

    def read(ended: Event) -> None:
        while not ended.is_set():
            for numbers in vault.batches(_READ_BATCH):
                if ended.is_set():
                    return
                if not _read(vault, node, numbers, counts):
                    ended.wait(_RETRY_SECONDS)

    back: Future[ReadBack] = Future()
    with beside(read):
        yield back
    back.set_result(_read_back(counts))


def read_all(vault: Vault, node: str) -> ReadBack:
    """Reads everything back once, through one node."""
    counts: Counter[str] = Counter()
    for numbers in vault.batches(_READ_BATCH):
        _read(vault, node, numbers, counts)
    return _read_back(counts)


def _read(vault: Vault, node: str, numbers: range, counts: Counter[str]) -> bool:
    """Reads these values back and counts the results. Returns False without an answer."""
    values = vault.corpus.values(numbers.start, len(numbers))
    try:
        answer = vault.cluster.api(node, OWNER).detokenize(vault.corpus.tokens(values))
    except Unanswered:
        answer = Answer(503, None)
    if answer.status in (429, 503):
        counts["unavailable"] += len(values)
        return False
    if answer.status != 200:
        raise LoadFailed(f"status {answer.status}: {answer.body}")
    for value, result in zip(values, answer.body["results"], strict=True):
        status = result["status"]
        counts[status if status != "ok" else "right" if result["value"] == value else "wrong"] += 1
    return True


def _read_back(counts: Counter[str]) -> ReadBack:
    told = ReadBack(counts["right"], counts["wrong"], counts["not_found"], counts["unavailable"])
    if sum(counts.values()) != told.right + told.wrong + told.not_found + told.unavailable:
        raise WrongAnswer(f"it does not hold that a token that was given out is there, or is not told yet: {dict(counts)}")
    return told
