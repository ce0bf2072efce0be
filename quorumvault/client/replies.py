"""Decodes the API's response bodies into types, and its problem details (RFC 9457) into errors."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from quorumvault import errors
from quorumvault.client.plan import NoReply, Reply, Success
from quorumvault.client.results import Health, NodeHealth, Result, Status
from quorumvault.crypto.canonical import from_json
from quorumvault.crypto.tokens import parse_alike
from quorumvault.errors import ItemError, QuorumVaultError, RequestError, WriteOutcome

StructT = TypeVar("StructT", bound=msgspec.Struct)


class TokensAnswer(msgspec.Struct, frozen=True):
    epoch: int
    tokens: list[str]


class RecordsAnswer(msgspec.Struct, frozen=True):
    epoch: int
    records: list[msgspec.Raw]
    replaced: dict[str, int]


class ResultAnswer(msgspec.Struct, frozen=True):
    status: Status
    value: msgspec.Raw = msgspec.Raw(b"null")


class ResultsAnswer(msgspec.Struct, frozen=True):
    results: list[ResultAnswer]


class MovedToken(msgspec.Struct, frozen=True):
    status: Status
    token: str | None = None


class MovedAnswer(msgspec.Struct, frozen=True):
    epoch: int
    results: list[MovedToken]


class AllEpochsAnswer(msgspec.Struct, frozen=True):
    epoch: int
    tokens: list[list[str]]


class EpochAnswer(msgspec.Struct, frozen=True):
    active_epoch: int


class FieldsAnswer(msgspec.Struct, frozen=True):
    fields: list[str]


class ItemProblem(msgspec.Struct, frozen=True):
    index: int = 0
    code: str = ""
    detail: str | None = None
    path: str | None = None


class Problem(msgspec.Struct, frozen=True):
    detail: str
    code: str
    retryable: bool = False
    errors: list[ItemProblem] = msgspec.field(default_factory=list)
    active_epoch: int | None = None
    outcome: str | None = None


_problem = msgspec.json.Decoder(Problem)
_BY_CODE = {kind.code: kind for kind in RequestError.__subclasses__()}
_WHOSE = "is this the URL of a QuorumVault node?"
_OK_WITHOUT = "an answer with a status and no value that goes with it"
#: How the JSON text of an integer begins, and that of any value.
_NUMBERS = frozenset(b"%d" % digit for digit in range(10)) | {b"-"}
_STARTS = _NUMBERS | {b'"', b"t", b"f"}
_INTEGER = re.compile(rb"-?[0-9]+")
_OUTCOMES: dict[str | None, WriteOutcome] = {"none": "none", "unknown": "unknown"}


def problem_of(reply: Reply) -> Problem | None:
    """Returns the problem that a reply carries, or None if the reply has no problem of this API."""
    try:
        return _problem.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def error_of(reply: Reply, problem: Problem | None) -> QuorumVaultError:
    """Makes the error for an unsuccessful reply: of the class that the node raised, or UnexpectedAnswer."""
    kind = None if problem is None else _BY_CODE.get(problem.code)
    if problem is None or kind is None:
        words = f"an answer of status {reply.status} that is none of this API: is this the URL of a QuorumVault node?"
        return errors.UnexpectedAnswer(words)
    if issubclass(kind, errors.NoQuorum | errors.Draining):
        return kind(problem.detail, outcome=_OUTCOMES.get(problem.outcome))
    if issubclass(kind, errors.EpochAhead):
        return kind(problem.detail, active_epoch=problem.active_epoch or 0)
    if issubclass(kind, errors.RateLimited):
        return kind(problem.detail, retry_after=int(reply.retry_after or 1))
    if issubclass(kind, errors.MethodNotAllowed):
        return kind(problem.detail, allow="")
    items = tuple(ItemError(item.index, item.code, item.detail or item.code, item.path) for item in problem.errors)
    return kind(problem.detail, errors=items)


def read(answered: Success, kind: type[StructT]) -> StructT:
    try:
        return msgspec.json.decode(answered.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unexpected(answered, "an answer that does not keep to the API") from None


def _reader(kind: type[StructT], items: str) -> Callable[[Success, int], StructT]:
    """Makes a reader of answers whose list ``items`` has one element for each item of the request."""

    def read_counted(answered: Success, count: int) -> StructT:
        answer = read(answered, kind)
        found = len(getattr(answer, items))
        if found != count:
            raise _unexpected(answered, f"{found} results for {count} items")
        return answer

    return read_counted


read_records = _reader(RecordsAnswer, "records")
_read_tokens = _reader(TokensAnswer, "tokens")
_read_moved = _reader(MovedAnswer, "results")
_read_results = _reader(ResultsAnswer, "results")


def read_tokens(answered: Success, count: int) -> TokensAnswer:
    answer = _read_tokens(answered, count)
    _check_tokens(answered, answer.tokens, answer.epoch)
    return answer


def read_moved(answered: Success, count: int) -> MovedAnswer:
    answer = _read_moved(answered, count)
    if any((item.status == "ok") is (item.token is None) for item in answer.results):
        raise _unexpected(answered, _OK_WITHOUT)
    _check_tokens(answered, [item.token for item in answer.results if item.token is not None], answer.epoch)
    return answer


def read_results(answered: Success, count: int) -> list[Result]:
    results = [Result(item.status, bytes(item.value)) for item in _read_results(answered, count).results]
    starts = {result.json[:1] for result in results if result.status == "ok"}
    others = {result.json for result in results if result.status != "ok"}
    if others - {b"null"} or not starts <= _STARTS or (starts & _NUMBERS and not all(map(_is_value, results))):
        raise _unexpected(answered, _OK_WITHOUT)
    return results


def _is_value(result: Result) -> bool:
    return result.json[:1] not in _NUMBERS or _INTEGER.fullmatch(result.json) is not None


def read_all_epochs(answered: Success, count: int) -> AllEpochsAnswer:
    answer = read(answered, AllEpochsAnswer)
    if len(answer.tokens) != count or any(len(tokens) != answer.epoch for tokens in answer.tokens):
        raise _unexpected(answered, f"other than {answer.epoch} tokens for each of {count} values")
    for epoch, tokens in enumerate(zip(*answer.tokens, strict=True), 1):
        _check_tokens(answered, tokens, epoch)
    return answer


def _check_tokens(answered: Success, tokens: Sequence[str], epoch: int) -> None:
    """Raises UnexpectedAnswer unless each is a token of this epoch."""
    parsed = parse_alike(tokens)
    if tokens and (parsed is None or parsed[0] != epoch):
        raise _unexpected(answered, f"an answer with other than tokens of the epoch {epoch}")


def check_distinct(tokens: Mapping[bytes, str]) -> None:
    """Raises UnexpectedAnswer if two values have one token. By their JSON texts: one value may have several."""
    told = len(set(tokens.values()))
    if told < len(tokens) and told < len({(token, from_json(text)) for text, token in tokens.items()}):
        raise errors.UnexpectedAnswer(f"one token for two values: {_WHOSE}")


def read_health(url: str, outcome: Reply | NoReply) -> NodeHealth:
    """Reads a node's report about itself, whatever its status: a node that cannot serve answers 503."""
    if isinstance(outcome, NoReply):
        return NodeHealth(url, None, f"{outcome.failure.value} ({outcome.detail})")
    try:
        return NodeHealth(url, msgspec.json.decode(outcome.body, type=Health))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NodeHealth(url, None, f"an answer of status {outcome.status} that is none of this API")


def _unexpected(answered: Success, words: str) -> errors.UnexpectedAnswer:
    error = errors.UnexpectedAnswer(f"{words}: {_WHOSE}")
    error.asked, error.request_id = answered.asked, answered.request_id
    return error
