"""``bin/bench notfound``: whether the time that a "not found" takes tells why it is one.

    another's      a token that another owner was given, of a value that this owner does not have
    never issued   well-formed, with a hash that nobody was given
    malformed      the same, with its last digit mistyped
    unknown epoch  well-formed, of an epoch that this owner has not reached

An owner who has as many records asks for tokens of these kinds, one request after another, over one connection to each node in
turn. The kinds follow each other in an order that a seed has shuffled, so that whatever else the machine does meets all of them
alike; all requests of a shape have the same length. The nodes are started again after the tokens were given out, so that the
records are in tables on disk, and not in memory alone.

Only the first two kinds are a secret: what is malformed, and which epochs there were, an owner sees without asking. All answers
have to be the same, and each is compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from itertools import combinations
from pathlib import Path

import msgspec

from bench.bodies import Results, TokenAsked, TokensAsked, TokensGiven, Values
from bench.effects import Effect, cliffs_delta, cohens_d
from bench.http import Lanes, LoadFailed, encode
from bench.load import OWNER
from bench.processes import machine
from bench.report import percentile
from bench.table import MarksMissing, Table, as_list, as_markdown, replace_section, show_all
from bench.work import WrongAnswer
from chaos.spelling import Speller
from chaos.testbed.cluster import NODES, Cluster, ClusterError

OTHER = "other"
OWNERS = (OWNER, OTHER)
#: Cliff's delta below which Romano et al. (2006) call an effect negligible: in normal distributions, a Cohen's d of 0.2.
NEGLIGIBLE = 0.147
#: Where the figures go in a document.
MARKS = ("<!-- bin/bench notfound writes from here -->", "<!-- bin/bench notfound writes up to here -->")

_INPUTS, _LEAST, _SEED = 20_000, 10, 1
_FILLED = 1_000
#: Requests that are encoded, sent and checked before the next ones are encoded.
_AT_ONE_GO = 500
_UNKNOWN_EPOCH = 9


class Kind(Enum):
    """Why a token is not found."""

    ANOTHERS = "another's"
    NEVER_ISSUED = "never issued"
    MALFORMED = "malformed"
    UNKNOWN_EPOCH = "unknown epoch"


@dataclass(frozen=True, slots=True)
class Shape:
    """What one request asks for: ``batch`` tokens in a list, or one alone; and the status of its answer."""

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
    """Two kinds compared: sizes above 0 say that the first one takes longer."""

    batch: int
    kinds: tuple[Kind, Kind]
    cohens_d: Effect
    cliffs_delta: Effect


class NotFoundReport(msgspec.Struct, frozen=True):
    """A whole run. ``made`` is a date; ``inputs``: requests of each kind and shape."""

    made: str
    machine: str
    seed: int
    inputs: int
    rows: list[Row]
    pairs: list[Pair]


def main(arguments: Sequence[str]) -> int:
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.write is not None:
            _written(chosen.write, "")  # before the minutes, not after them
        with (
            tempfile.TemporaryDirectory(prefix="quorumvault-notfound-", dir=chosen.directory) as place,
            Cluster.create(Path(place) / "cluster", OWNERS) as cluster,
        ):
            cluster.start()
            cluster.wait_ready(reachable=len(NODES))
            report = measure(cluster, inputs=chosen.inputs, seed=chosen.seed)
            cluster.stop()
    except (ClusterError, LoadFailed, MarksMissing, WrongAnswer, OSError) as error:
        print(f"bin/bench notfound: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bin/bench notfound: interrupted; nothing was written", file=sys.stderr)
        return 130
    _save(report, chosen.json, chosen.write)
    show_all(tables(report), findings(report), sys.stdout)
    return 0 if holds(report) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/bench notfound", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--inputs", type=_count, default=_INPUTS, metavar="N", help=f"requests of each kind and shape (default: {_INPUTS:,})"
    )
    parser.add_argument("--seed", type=int, default=_SEED, metavar="N", help=f"of the order (default: {_SEED})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables between the marks of that file")
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data (default: the temporary directory)")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < _LEAST:
        raise argparse.ArgumentTypeError(f"expected {_LEAST} or more")
    return int(text)


def measure(cluster: Cluster, *, inputs: int, seed: int) -> NotFoundReport:
    """On a cluster with the OWNERS, all of whose nodes run. Raises ClusterError, LoadFailed, WrongAnswer."""
    chance = random.Random(seed)
    pools = _pools(cluster, max(inputs, *(shape.batch for shape in SHAPES)), chance)
    cluster.restart()
    cluster.wait_ready(reachable=len(NODES))
    rows, pairs = [], []
    for shape in SHAPES:
        times = _times(cluster, shape, pools, inputs, chance)
        rows += [_row(shape, kind, times[kind]) for kind in Kind]
        pairs += [
            Pair(shape.batch, both, cohens_d(*(times[kind] for kind in both)), cliffs_delta(*(times[kind] for kind in both)))
            for both in combinations(Kind, 2)
        ]
    return NotFoundReport(f"{datetime.now(UTC):%Y-%m-%d}", machine(), seed, inputs, rows, pairs)


def _pools(cluster: Cluster, size: int, chance: random.Random) -> dict[Kind, list[str]]:
    """Tokens of each kind, after both owners were given as many."""
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
    with Lanes([cluster.nodes[name].address for name in NODES], at_once=len(NODES)) as lanes:
        answers = lanes.drive([encode("/tokenize", cluster.api_key(owner), body) for body in bodies]).bodies
    return [token for answer in answers for token in msgspec.json.decode(answer, type=TokensGiven).tokens]


def _mistyped(token: str, chance: random.Random) -> str:
    return token[:-1] + chance.choice([digit for digit in "0123456789abcdef" if digit != token[-1]])


def _times(
    cluster: Cluster, shape: Shape, pools: dict[Kind, list[str]], inputs: int, chance: random.Random
) -> dict[Kind, array[float]]:
    """Seconds of each request, by kind. The first few requests only warm up."""
    order = [kind for kind in Kind for _ in range(inputs)]
    chance.shuffle(order)
    tokens = {kind: _drawn(pools[kind], shape.batch, chance) for kind in Kind}
    times = {kind: array("d") for kind in Kind}
    key = cluster.api_key(OWNER)
    first: object = None
    with Lanes([cluster.nodes[name].address for name in NODES], at_once=1, status=shape.status) as lanes:
        for begin in (None, *range(0, len(order), _AT_ONE_GO)):
            part = order[:_AT_ONE_GO] if begin is None else order[begin : begin + _AT_ONE_GO]
            requests = [encode("/detokenize", key, shape.body(next(tokens[kind]))) for kind in part]
            driven = lanes.drive(requests)
            for answer in driven.bodies:
                first = first or _told(shape, answer)
                _require_same(first, _told(shape, answer))
            if begin is not None:
                for kind, seconds in zip(part, driven.latencies, strict=True):
                    times[kind].append(seconds)
    return times


def _drawn(pool: list[str], batch: int, chance: random.Random) -> Iterator[list[str]]:
    """Tokens for one request after another: singles each in its turn, batches drawn by chance."""
    while True:
        if batch == 1:
            yield from ([token] for token in chance.sample(pool, len(pool)))
        else:
            yield chance.sample(pool, batch)


def _told(shape: Shape, answer: bytes) -> object:
    """An answer without its request's id. Raises WrongAnswer if it is not that nothing was found."""
    if shape.batch == 1:
        problem = msgspec.json.decode(answer, type=dict[str, object])
        if problem.get("code") != "not-found":
            raise WrongAnswer("a token that is not this owner's was not answered with not-found")
        return {name: member for name, member in problem.items() if name != "request_id"}
    results = msgspec.json.decode(answer, type=Results)
    if results.not_found != shape.batch or {result.status for result in results.results} != {"not_found"}:
        raise WrongAnswer("a batch of tokens that are not this owner's was not answered with not_found throughout")
    return answer


def _require_same(first: object, other: object) -> None:
    if first != other:
        raise WrongAnswer("two answers of not found differ")


def _row(shape: Shape, kind: Kind, times: Sequence[float]) -> Row:
    median, p95, p99 = statistics.median(times), percentile(times, 95), percentile(times, 99)
    return Row(shape.batch, kind, len(times), median * 1e3, p95 * 1e3, p99 * 1e3)


def holds(report: NotFoundReport) -> bool:
    """Whether the times could be those of a node that does not tell another's token from one that was never issued."""
    return all(pair.cliffs_delta.within(NEGLIGIBLE) for pair in _secret(report))


def _secret(report: NotFoundReport) -> list[Pair]:
    return [pair for pair in report.pairs if pair.kinds == (Kind.ANOTHERS, Kind.NEVER_ISSUED)]


def findings(report: NotFoundReport) -> list[str]:
    """In sentences: where it was measured, and how well the one secret is kept."""
    what = f"{report.inputs:,} requests of each kind and shape, seed {report.seed}"
    return [f"Measured on {report.made} on {report.machine}. {what}.", *map(_verdict, _secret(report))]


def _verdict(pair: Pair) -> str:
    delta = pair.cliffs_delta
    shape = "Requests for one token" if pair.batch == 1 else f"Batches of {pair.batch}"
    right = (1 + abs(delta.size)) / 2
    return (
        f"{shape}: Cliff's delta between another's tokens and never issued ones is {_interval(delta)}: who guesses from two "
        f"times which is which is right {right:.1%} of the time. Bound: an interval that meets ±{NEGLIGIBLE}, "
        f"{'met' if delta.within(NEGLIGIBLE) else 'missed'}."
    )


def tables(report: NotFoundReport) -> list[Table]:
    rows: list[tuple[str, ...]] = [
        (row.kind.value, f"{row.batch}", f"{row.requests:,}", f"{row.median_ms:.3f}", f"{row.p95_ms:.3f}", f"{row.p99_ms:.3f}")
        for row in report.rows
    ]
    pairs: list[tuple[str, ...]] = [
        (" − ".join(kind.value for kind in pair.kinds), f"{pair.batch}", _interval(pair.cohens_d), _interval(pair.cliffs_delta))
        for pair in report.pairs
    ]
    return [
        Table("Not found: times of a request", ("kind", "batch", "requests", "median ms", "p95 ms", "p99 ms"), rows),
        Table("Two kinds apart: effect sizes, and their 95 % intervals", ("kinds", "batch", "Cohen's d", "Cliff's delta"), pairs),
    ]


def _interval(effect: Effect) -> str:
    return f"{effect.size:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"


def _save(report: NotFoundReport, figures: Path | None, text: Path | None) -> None:
    if text is not None:
        section = "\n\n".join([as_list(findings(report)), *map(as_markdown, tables(report))])
        text.write_text(_written(text, section))
        figures = figures or text.with_name(f"{text.stem}-notfound.json")
    if figures is not None:
        figures.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _written(path: Path, section: str) -> str:
    try:
        return replace_section(path.read_text(), section, MARKS)
    except MarksMissing as error:
        raise MarksMissing(f"{path}: {error}") from None
