"""Requests and their right answers: requests are made before the clock starts, and answers are checked after it stops.

Values have 15 characters, about as long as a social security number or a full name, and no two runs share any. Repeated values
and tokens to detokenize are drawn uniformly from all stored so far, so that they lie anywhere in the tables, as in a vault that
has been in use.
"""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

# The bodies of requests and answers, as the load client and the floor read and write them.


class Values(msgspec.Struct):
    """POST /tokenize."""

    values: list[str]


class TokensGiven(msgspec.Struct):
    """Its answer."""

    epoch: int
    tokens: list[str]


class TokenAsked(msgspec.Struct):
    """POST /detokenize, for one token."""

    token: str


class TokensAsked(msgspec.Struct):
    """POST /detokenize."""

    tokens: list[str]


class Result(msgspec.Struct, gc=False):
    status: str
    value: str | None = None


class Results(msgspec.Struct):
    """Its answer."""

    results: list[Result]
    found: int
    not_found: int


_encode = msgspec.json.Encoder().encode
_tokens_given = msgspec.json.Decoder(TokensGiven).decode
_results = msgspec.json.Decoder(Results).decode


class Operation(Enum):
    """The four measured operations. ``COLD`` is ``RECOVERED`` right after all nodes were killed and restarted."""

    NEW = "new"
    REPEATED = "repeated"
    RECOVERED = "recovered"
    COLD = "recovered, cold"

    @property
    def path(self) -> str:
        return "/tokenize" if self in (Operation.NEW, Operation.REPEATED) else "/detokenize"


class WrongAnswer(Exception):
    """A wrong answer, whose latency does not matter."""


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """Requests of one batch size. ``values`` and ``tokens`` correspond, batch by batch; a new value has no token yet."""

    operation: Operation
    values: list[list[str]]
    tokens: list[list[str]]
    bodies: list[bytes]

    @property
    def count(self) -> int:
        return sum(map(len, self.values))


class Corpus:
    """The values given to one vault, or to the floor. Keeps every ``stride``-th pair, to ask for it again."""

    def __init__(self, stride: int, seed: int) -> None:
        self.records = 0
        self._stride = stride
        self._random = random.Random(seed)
        self._prefix = secrets.token_hex(3)
        self._made = 0
        self._values: list[str] = []
        self._tokens: list[str] = []

    def hot(self, count: int) -> list[int]:
        """Draws some of the kept pairs, to ask for them repeatedly."""
        return self._random.sample(range(len(self._values)), min(count, len(self._values)))

    def task(self, operation: Operation, batch: int, requests: int, among: Sequence[int] | None = None) -> Task:
        """Makes the requests of a measurement. All operations but NEW need ``batch`` kept pairs.

        ``among``: the pairs to ask for, if not all.
        """
        if operation is Operation.NEW:
            values = [self._new_values(batch) for _ in range(requests)]
            return Task(operation, values, [], [_encode(Values(each)) for each in values])
        known = range(len(self._values)) if among is None else among
        drawn = [self._random.sample(known, batch) for _ in range(requests)]
        values = [[self._values[at] for at in each] for each in drawn]
        tokens = [[self._tokens[at] for at in each] for each in drawn]
        if operation is Operation.REPEATED:
            return Task(operation, values, tokens, [_encode(Values(each)) for each in values])
        return Task(operation, values, tokens, [_encode(TokensAsked(each)) for each in tokens])

    def settle(self, task: Task, answers: Sequence[bytes]) -> None:
        """Checks every answer, and notes new tokens. Raises WrongAnswer."""
        if task.operation is Operation.NEW:
            tokens = [_tokens_given(answer).tokens for answer in answers]
            _require([len(set(each)) for each in tokens] == list(map(len, task.values)), "each new value has a token of its own")
            for values, given in zip(task.values, tokens, strict=True):
                self._remember(values, given)
        elif task.operation is Operation.REPEATED:
            _require([_tokens_given(answer).tokens for answer in answers] == task.tokens, "the same value has the same token")
        else:
            told = [[result.value for result in _results(answer).results] for answer in answers]
            _require(told == task.values, "a token gives back its value")

    def _new_values(self, count: int) -> list[str]:
        first = self._made
        self._made += count
        return [f"{self._prefix}-{number:08}" for number in range(first, self._made)]

    def _remember(self, values: Sequence[str], tokens: Sequence[str]) -> None:
        skip = -self.records % self._stride
        self._values += values[skip :: self._stride]
        self._tokens += tokens[skip :: self._stride]
        self.records += len(values)


def _require(held: bool, what: str) -> None:
    if not held:
        raise WrongAnswer(f"it does not hold that {what}")
