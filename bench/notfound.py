"""``bin/bench notfound``: whether the time of a "not found" answer reveals its reason.

    another's      a token of another owner, for a value that this owner does not have
    never issued   well-formed, with a hash that was never issued
    malformed      the same, with its last digit mistyped
    unknown epoch  well-formed, of an epoch that this owner has not reached

An owner with as many records asks for tokens of these kinds, one request after another, over one connection to each node in turn.
A seed shuffles the order of the kinds, so that other work on the machine affects all of them alike. All requests of a shape have
the same length. The nodes restart after the tokens were issued, so that the records are in tables on disk, not only in memory.

Only the first two kinds must be indistinguishable: an owner can tell malformed tokens and unknown epochs without asking. All
answers must be the same, and each is compared.
"""

from __future__ import annotations

import random
import statistics
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from pathlib import Path

import msgspec

from bench.effects import Effect, cliffs_delta, cohens_d
from bench.http import Lanes, encode
from bench.load import OWNER
from bench.report import Account, Check, Report, Table, Tell, percentile, today
from bench.work import Results, TokenAsked, TokensAsked, TokensGiven, Values, WrongAnswer
from chaos.testbed.cluster import NODES, Cluster
from chaos.testbed.spelling import Speller

OTHER = "other"
OWNERS = (OWNER, OTHER)
#: Romano et al. (2006) call an effect below this Cliff's delta negligible: in normal distributions, a Cohen's d of 0.2.
NEGLIGIBLE = 0.147

_FILLED = 1_000
#: The number of requests to encode, send and check before the next ones are encoded.
_AT_ONE_GO = 500
_UNKNOWN_EPOCH = 9


@dataclass(frozen=True, slots=True)
class NotFoundPlan:
    """``inputs``: requests of each kind and shape. ``seed``: determines their order."""

    name: str = "notfound"
    inputs: int = 20_000
    seed: int = 1


class Kind(Enum):
    """The reason why a token is not found."""

    ANOTHERS = "another's"
    NEVER_ISSUED = "never issued"
    MALFORMED = "malformed"
    UNKNOWN_EPOCH = "unknown epoch"


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a request: ``batch`` tokens in a list, or a single token; and the status of its answer."""

    batch: int
    status: int

    def body(self, tokens: list[str]) -> bytes:
        return msgspec.json.encode(TokenAsked(*tokens) if self.batch == 1 else TokensAsked(tokens))


SHAPES = (Shape(batch=1, status=404), Shape(batch=100, status=200))


class Row(msgspec.Struct, frozen=True):
    """The times of one kind's requests."""

    batch: int
    kind: Kind
    requests: int
    median_ms: float
    p95_ms: float
    p99_ms: float


class Pair(msgspec.Struct, frozen=True):
    """Two kinds compared. Effect sizes above 0 mean that the first kind takes longer."""

    batch: int
    kinds: tuple[Kind, Kind]
    cohens_d: Effect
    cliffs_delta: Effect


class NotFoundReport(Report, frozen=True):
    """``inputs``: requests of each kind and shape."""

    seed: int
    inputs: int
    rows: list[Row]
    pairs: list[Pair]

    def account(self) -> Account:
        """Returns the account. It holds if the times fit a node that cannot tell another owner's token from one never issued."""
        secret = [pair for pair in self.pairs if pair.kinds == (Kind.ANOTHERS, Kind.NEVER_ISSUED)]
        told = f"{self.occasion}: {self.inputs:,} requests of each kind and shape, seed {self.seed}."
        return Account(_tables(self), list(map(_check, secret)), [told])


def run(plan: NotFoundPlan, place: Path, tell: Tell) -> NotFoundReport:
    """Measures a new cluster, in an empty directory."""
    with Cluster.create(place / "cluster", OWNERS) as cluster:
        cluster.bring_up()
        tell(f"{plan.inputs:,} requests of each kind and shape")
        report = measure(cluster, inputs=plan.inputs, seed=plan.seed)
        cluster.stop()
    return report


def measure(cluster: Cluster, *, inputs: int, seed: int) -> NotFoundReport:
    """Measures a cluster with the OWNERS, whose nodes all run. Raises ClusterError, LoadFailed, WrongAnswer."""
    chance = random.Random(seed)
    pools = _pools(cluster, max(inputs, *(shape.batch for shape in SHAPES)), chance)
    cluster.restart()
    cluster.wait_ready(reachable=len(NODES))
    times = {shape: _times(cluster, shape, pools, inputs, chance) for shape in SHAPES}
    rows = [_row(shape, kind, seconds) for shape, of_kind in times.items() for kind, seconds in of_kind.items()]
    pairs = [
        Pair(shape.batch, both, cohens_d(*map(of_kind.__getitem__, both)), cliffs_delta(*map(of_kind.__getitem__, both)))
        for shape, of_kind in times.items()
        for both in combinations(Kind, 2)
    ]
    return NotFoundReport(*today(), "notfound", seed, inputs, rows, pairs)


def _pools(cluster: Cluster, size: int, chance: random.Random) -> dict[Kind, list[str]]:
    """Returns tokens of each kind, after giving both owners equally many records."""
    given = {owner: _tokenized(cluster, owner, size) for owner in OWNERS}
    strange = Speller(chance.randbytes(32))
    values = [f"{number}" for number in range(size)]
    return {
        Kind.ANOTHERS: given[OTHER],
        Kind.NEVER_ISSUED: [strange.token(OWNER, 1, value) for value in values],
        Kind.MALFORMED: [_mistyped(strange.token(OTHER, 1, value), chance) for value in values],
        Kind.UNKNOWN_EPOCH: [strange.token(OWNER, _UNKNOWN_EPOCH, value) for value in values],
    }


def _tokenized(cluster: Cluster, owner: str, size: int) -> list[str]:
    values = [f"{owner} {number}" for number in range(size)]
    bodies = [msgspec.json.encode(Values(values[first : first + _FILLED])) for first in range(0, size, _FILLED)]
    with closing(Lanes([cluster.nodes[name].address for name in NODES], at_once=len(NODES))) as lanes:
        answers = lanes.drive([encode("/tokenize", cluster.api_key(owner), body) for body in bodies]).bodies
    return [token for answer in answers for token in msgspec.json.decode(answer, type=TokensGiven).tokens]


def _mistyped(token: str, chance: random.Random) -> str:
    return token[:-1] + chance.choice([digit for digit in "0123456789abcdef" if digit != token[-1]])


def _times(
    cluster: Cluster, shape: Shape, pools: dict[Kind, list[str]], inputs: int, chance: random.Random
) -> dict[Kind, array[float]]:
    """Returns the seconds of each request, by kind. The first few requests only warm up."""
    order = [kind for kind in Kind for _ in range(inputs)]
    chance.shuffle(order)
    tokens = {kind: _drawn(pools[kind], shape.batch, chance) for kind in Kind}
    times = {kind: array("d") for kind in Kind}
    key = cluster.api_key(OWNER)
    first: object = None
    with closing(Lanes([cluster.nodes[name].address for name in NODES], at_once=1, status=shape.status)) as lanes:
        for begin in (None, *range(0, len(order), _AT_ONE_GO)):
            part = order[:_AT_ONE_GO] if begin is None else order[begin : begin + _AT_ONE_GO]
            requests = [encode("/detokenize", key, shape.body(next(tokens[kind]))) for kind in part]
            driven = lanes.drive(requests)
            for answer in driven.bodies:
                told = _told(shape, answer)
                first = first or told
                if told != first:
                    raise WrongAnswer("two answers of not found differ")
            if begin is not None:
                for kind, seconds in zip(part, driven.latencies, strict=True):
                    times[kind].append(seconds)
    return times


def _drawn(pool: list[str], batch: int, chance: random.Random) -> Iterator[list[str]]:
    """Yields the tokens of one request after another: single tokens in turn, batches drawn at random."""
    while True:
        if batch == 1:
            yield from ([token] for token in chance.sample(pool, len(pool)))
        else:
            yield chance.sample(pool, batch)


def _told(shape: Shape, answer: bytes) -> object:
    """Returns an answer without its request id. Raises WrongAnswer unless the answer is that nothing was found."""
    if shape.batch == 1:
        problem = msgspec.json.decode(answer, type=dict[str, object])
        if problem.get("code") != "not-found":
            raise WrongAnswer("a token that is not this owner's was not answered with not-found")
        return {name: member for name, member in problem.items() if name != "request_id"}
    results = msgspec.json.decode(answer, type=Results)
    if results.not_found != shape.batch or {result.status for result in results.results} != {"not_found"}:
        raise WrongAnswer("a batch of tokens that are not this owner's was not answered with not_found throughout")
    return answer


def _row(shape: Shape, kind: Kind, times: Sequence[float]) -> Row:
    median, p95, p99 = statistics.median(times), percentile(times, 95), percentile(times, 99)
    return Row(shape.batch, kind, len(times), median * 1e3, p95 * 1e3, p99 * 1e3)


def _check(pair: Pair) -> Check:
    delta = pair.cliffs_delta
    shape = "requests for one token" if pair.batch == 1 else f"batches of {pair.batch}"
    right = (1 + abs(delta.size)) / 2
    what = f"{shape}: Cliff's delta, another's − never issued; a guess from two times is right in {right:.1%}"
    return Check(what, _interval(delta), f"an interval that overlaps ±{NEGLIGIBLE}", delta.within(NEGLIGIBLE))


def _tables(report: NotFoundReport) -> list[Table]:
    times = {
        "kind": "{0.kind.value}",
        "batch": "{0.batch}",
        "requests": "{0.requests:,}",
        "median ms": "{0.median_ms:.3f}",
        "p95 ms": "{0.p95_ms:.3f}",
        "p99 ms": "{0.p99_ms:.3f}",
    }
    effects: dict[str, str | Callable[[Pair], str]] = {
        "kinds": "{0.kinds[0].value} − {0.kinds[1].value}",
        "batch": "{0.batch}",
        "Cohen's d": lambda pair: _interval(pair.cohens_d),
        "Cliff's delta": lambda pair: _interval(pair.cliffs_delta),
    }
    return [
        Table.of("Not found: response times", report.rows, times),
        Table.of("Differences between two kinds: effect sizes with 95 % intervals", report.pairs, effects),
    ]


def _interval(effect: Effect) -> str:
    return f"{effect.size:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"
