"""The operations of the API as plans: what both clients run. Pure.

tokenize    values -> JSON texts -> distinct texts -> runs within GET /limits -> a request each -> tokens in order.
            A rotation during a call leaves runs of two epochs. The older runs are tokenized again: one call has one epoch.
detokenize  Tokens, in the same steps; they may be of several epochs. If the values are too long for one answer, the client
            asks again in halves: only the nodes know the lengths.
retokenize  Tokens, in the same steps; all results have one epoch, as in tokenize.
columns     Arrow columns, in the same steps. The caller (analytics/arrow.py) cuts them into runs and checks the epoch.
tokens      Tokens of every epoch for values, in the same steps. Runs are small enough for all tokens to be within the limits.

While nodes do not answer in time, a run is sent in smaller parts (pace.py).
``deadline`` is always in seconds from now, for the whole call. With None each request has its own (ClientPolicy.request).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from quorumvault import errors
from quorumvault.client import batches
from quorumvault.client.failover import Nodes
from quorumvault.client.plan import Call, Clock, FailedTry, Plan, Send, Success, exchange
from quorumvault.client.policy import EPOCH_PASSES, ClientPolicy
from quorumvault.client.replies import (
    AllEpochsAnswer,
    EpochAnswer,
    FieldsAnswer,
    MovedAnswer,
    RecordsAnswer,
    TokensAnswer,
    check_distinct,
    read,
    read_all_epochs,
    read_health,
    read_moved,
    read_records,
    read_results,
    read_tokens,
)
from quorumvault.client.results import Limits, NodeHealth, Result, TokenizedRecords, TokenResult, Value
from quorumvault.client.retry import Attempts, Effort, TooSlow
from quorumvault.client.settings import Settings
from quorumvault.client.trouble import Trouble

#: Operations that take Arrow columns in place of JSON, and the media type of Arrow columns.
ArrowOperation = Literal["tokenize", "detokenize", "retokenize"]
ARROW = "application/vnd.apache.arrow.stream"
AnswerT = TypeVar("AnswerT")
EpochT = TypeVar("EpochT", TokensAnswer, RecordsAnswer, MovedAnswer, AllEpochsAnswer)

#: Operations that store nothing, even if their outcome is unknown.
_ONLY_READ = ("/detokenize", "/tokens")
_NULL, _NULL_TOKEN = Result("null"), TokenResult("null")


class _Items(Protocol):
    """Items to send."""

    def call(self, run: slice) -> Call:
        """Returns the request for this run of items."""

    def place(self, index: int) -> int | None:
        """Returns the caller's index of one of these items."""


class _Columns(NamedTuple):
    """Texts that ``encode`` turns into Arrow streams."""

    operation: ArrowOperation
    encode: Callable[[slice], bytes]
    size: int

    def call(self, run: slice) -> Call:
        items = run.stop - run.start
        writes = self.operation != "detokenize"
        return Call("POST", f"/{self.operation}", self.encode(run), writes=writes, media=ARROW, items=items)

    def place(self, index: int) -> int | None:
        return index if 0 <= index < self.size else None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Items to send: the operation, the body's member, the JSON texts, and the caller's index of each text."""

    path: str
    member: str
    texts: list[bytes] = field(repr=False)
    places: list[int]

    def runs(self, limits: Limits) -> list[slice]:
        envelope = len(batches.body(self.member, ()))
        try:
            if self.member == "records":
                return batches.cut(self.texts, limits, envelope, batches.record_values)
            return batches.cut(self.texts, limits, envelope)
        except errors.TooLarge as error:
            raise batches.about(error, self.place) from None

    def call(self, run: slice) -> Call:
        body = batches.body(self.member, self.texts[run])
        return Call("POST", self.path, body, writes=self.path not in _ONLY_READ, items=run.stop - run.start)

    def place(self, index: int) -> int | None:
        return self.places[index] if 0 <= index < len(self.places) else None


class Operations:
    """Plans for one client."""

    def __init__(self, attempts: Attempts, policy: ClientPolicy, clock: Clock) -> None:
        self._attempts = attempts
        self._policy = policy
        self._clock = clock
        self._limits: Limits | None = None

    @classmethod
    def of(
        cls, settings: Settings, policy: ClientPolicy, clock: Clock, rng: Random, failed: Callable[[FailedTry], None]
    ) -> Operations:
        """Makes the operations of a new client. Clients start at different nodes."""
        nodes = Nodes(settings.urls, policy, first=rng.randrange(len(settings.urls)))
        return cls(Attempts(nodes, policy, settings.headers, settings.api_key, clock, rng, failed), policy, clock)

    def tokenize(self, values: Sequence[Value], *, deadline: float | None = None) -> Plan[list[str | None]]:
        until = self._until(deadline)
        texts = batches.encode_all(values, batches.encode_value, errors.NotTokenizable)
        batch = _distinct("/tokenize", "values", texts)
        limits = yield from self._limits_in_force(until)
        batches.check_sizes(texts, limits)
        answers = yield from self._of_one_epoch(batch, limits, until, read_tokens)
        tokens = dict(zip(batch.texts, (token for answer in answers for token in answer.tokens), strict=True))
        check_distinct(tokens)
        return [None if text is None else tokens[text] for text in texts]

    def tokenize_records(self, records: Sequence[Mapping[str, Any]], *, deadline: float | None = None) -> Plan[TokenizedRecords]:
        until = self._until(deadline)
        texts = [text for text in batches.encode_all(records, batches.encode_record, errors.Invalid) if text is not None]
        batch = _Batch("/tokenize", "records", texts, list(range(len(texts))))
        limits = yield from self._limits_in_force(until)
        answers = yield from self._of_one_epoch(batch, limits, until, read_records)
        if not answers:
            return TokenizedRecords((yield from self.epoch(deadline=deadline)), [], {})
        replaced: dict[str, int] = {}
        for answer in answers:
            for path, count in answer.replaced.items():
                replaced[path] = replaced.get(path, 0) + count
        return TokenizedRecords(answers[0].epoch, [_load(text) for answer in answers for text in answer.records], replaced)

    def detokenize(
        self, tokens: Sequence[str | None], *, missing: Literal["null", "error"] = "null", deadline: float | None = None
    ) -> Plan[list[Result]]:
        until = self._until(deadline)
        texts = batches.encode_all(tokens, batches.encode_token, errors.Invalid)
        batch = _distinct("/detokenize", "tokens", texts)
        limits = yield from self._limits_in_force(until)
        answers = yield from self._answers(batch, batch.runs(limits), until, read_results)
        found = dict(zip(batch.texts, (result for _, results in answers for result in results), strict=True))
        results = [_NULL if text is None else found[text] for text in texts]
        lacking = tuple(index for index, result in enumerate(results) if result.status == "not_found")
        if lacking and missing == "error":
            raise errors.TokensNotFound(lacking, len(results))
        return results

    def exchange_arrow(
        self, operation: ArrowOperation, encode: Callable[[slice], bytes], count: int, *, deadline: float | None = None
    ) -> Plan[list[tuple[slice, bytes]]]:
        columns = _Columns(operation, encode, count)
        return (yield from self._answers(columns, [slice(0, count)], self._until(deadline), lambda answered, size: answered.body))

    def retokenize(self, tokens: Sequence[str | None], *, deadline: float | None = None) -> Plan[list[TokenResult]]:
        until = self._until(deadline)
        texts = batches.encode_all(tokens, batches.encode_token, errors.Invalid)
        batch = _distinct("/retokenize", "tokens", texts)
        limits = yield from self._limits_in_force(until)
        answers = yield from self._of_one_epoch(batch, limits, until, read_moved)
        moved = dict(zip(batch.texts, (token for answer in answers for token in answer.results), strict=True))
        return [_NULL_TOKEN if text is None else TokenResult(moved[text].status, moved[text].token) for text in texts]

    def tokens_all_epochs(self, values: Sequence[Value], *, deadline: float | None = None) -> Plan[list[list[str] | None]]:
        until = self._until(deadline)
        texts = batches.encode_all(values, batches.encode_value, errors.NotTokenizable)
        batch = _distinct("/tokens", "values", texts)
        limits = yield from self._limits_in_force(until)
        batches.check_sizes(texts, limits)
        epochs = (yield from self._epoch(until)) if batch.texts else 1
        fitting = msgspec.structs.replace(limits, items=max(limits.items // epochs, 1))
        answers = yield from self._of_one_epoch(batch, fitting, until, read_all_epochs)
        derived = dict(zip(batch.texts, (tokens for answer in answers for tokens in answer.tokens), strict=True))
        return [None if text is None else list(derived[text]) for text in texts]

    def rotate(self, from_epoch: int, *, deadline: float | None = None) -> Plan[int]:
        body = msgspec.json.encode({"from_epoch": from_epoch})
        answered = yield from self._attempts.request(Call("POST", "/rotate-epoch", body, writes=True), self._until(deadline))
        return read(answered, EpochAnswer).active_epoch

    def epoch(self, *, deadline: float | None = None) -> Plan[int]:
        return (yield from self._epoch(self._until(deadline)))

    def _epoch(self, until: float | None) -> Plan[int]:
        answered = yield from self._attempts.request(Call("GET", "/epoch"), until)
        return read(answered, EpochAnswer).active_epoch

    def fields(self, *, deadline: float | None = None) -> Plan[list[str]]:
        answered = yield from self._attempts.request(Call("GET", "/fields"), self._until(deadline))
        return read(answered, FieldsAnswer).fields

    def limits(self, *, deadline: float | None = None) -> Plan[Limits]:
        return (yield from self._limits_in_force(self._until(deadline)))

    def _limits_in_force(self, until: float | None) -> Plan[Limits]:
        """Asks for the limits once in a client's life: they change only with a node's configuration file."""
        if self._limits is None:
            answered = yield from self._attempts.request(Call("GET", "/limits", needs_key=False), until)
            self._limits = read(answered, Limits)
        return self._limits

    def health(self) -> Plan[list[NodeHealth]]:
        """Asks each node once, in the order of their URLs, without retries: a node's absence is part of the answer."""
        call, reports = Call("GET", "/health", needs_key=False), []
        for url in self._attempts.nodes.urls:
            silence = self._policy.health_silence
            headers = self._attempts.headers_of(call)
            outcome = yield from exchange(Send(url + call.path, call.method, headers, None, silence, self._clock() + 2 * silence))
            reports.append(read_health(url, outcome))
        return reports

    def trouble(self) -> Trouble:
        return self._attempts.troubles.now()

    def _until(self, deadline: float | None) -> float | None:
        return None if deadline is None else self._clock() + deadline

    def _answers(
        self, items: _Items, runs: Sequence[slice], until: float | None, read_answer: Callable[[Success, int], AnswerT]
    ) -> Plan[list[tuple[slice, AnswerT]]]:
        """Asks for each run. Returns the answers in order; a run too large to answer, or to answer in time, has several."""
        answers: list[tuple[slice, AnswerT]] = []
        waiting = [*reversed(runs)]
        effort = self._attempts.begin(until)
        while waiting:
            run, rest = self._attempts.pace.cut(waiting.pop())
            waiting += [] if rest is None else [rest]
            size = run.stop - run.start
            try:
                answered = yield from self._send(items, run, effort)
            except TooSlow:
                waiting.append(run)
                continue
            except (errors.TooLarge, errors.TooManyItems):
                if size == 1:
                    raise
                middle = run.start + size // 2
                waiting += [slice(middle, run.stop), slice(run.start, middle)]
            else:
                answers.append((run, read_answer(answered, size)))
            effort = self._attempts.begin(until)
        return answers

    def _send(self, items: _Items, run: slice, effort: Effort) -> Plan[Success]:
        try:
            return (yield from self._attempts.attempt(items.call(run), effort))
        except errors.RequestError as error:
            if not error.errors:
                raise
            raise batches.about(error, lambda index: items.place(run.start + index)) from None

    def _of_one_epoch(
        self, batch: _Batch, limits: Limits, until: float | None, read_answer: Callable[[Success, int], EpochT]
    ) -> Plan[list[EpochT]]:
        """Returns the answers to a batch's runs, all of one epoch: runs with tokens of an older epoch are asked for again."""
        stale = batch.runs(limits)
        answers: dict[int, tuple[slice, EpochT]] = {}
        for _ in range(EPOCH_PASSES):
            for run, answer in (yield from self._answers(batch, stale, until, read_answer)):
                answers[run.start] = run, answer
            newest = max((answer.epoch for _, answer in answers.values()), default=0)
            stale = [run for run, answer in answers.values() if answer.epoch < newest]
            if not stale:
                return [answers[start][1] for start in sorted(answers)]
        raise errors.EpochMoved


def _distinct(path: str, member: str, texts: Sequence[bytes | None]) -> _Batch:
    """Makes a batch with each distinct text once, at its first place, and without nulls."""
    places: dict[bytes, int] = {}
    for index, text in enumerate(texts):
        if text is not None:
            places.setdefault(text, index)
    return _Batch(path, member, list(places), list(places.values()))


def _load(record: msgspec.Raw) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(bytes(record))
    except ValueError:
        limit = sys.get_int_max_str_digits()
        raise errors.IntegerTooLong(
            f"a record has an integer of more than {limit} digits: raise that with sys.set_int_max_str_digits"
        ) from None
    return loaded
