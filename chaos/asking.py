"""Sends one operation of a history as an HTTP request, and records the answer as its outcome: exact about what is unknown.

An answer outside the API's contract is a Breach: the harness does not guess its meaning.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import httpx2
import msgspec

from chaos.testbed.checkers import EPOCH_AHEAD
from chaos.testbed.history import Action, Outcome
from chaos.testbed.spelling import Speller

#: Seconds to wait for an answer. A node gives up on a request after 5 s, so after this time it will never answer.
DEADLINE = 7.0
#: On one machine a connection succeeds or is refused at once, or its host is cut off.
_CONNECT_SECONDS = 2.0
#: Contract: `qv_<epoch>_<body>`, at most 64 characters.
_TOKEN = re.compile(r"qv_([1-9][0-9]{0,9})_[a-z0-9]{32,}")
_TOKEN_LENGTH = 64
#: No connection could be made, so no request was sent.
REFUSED = "refused"
#: The statuses that may stand in place of an item's value or token.
_WORDS = frozenset({"not_found", "unavailable", "collision"})
_PATHS = {
    Action.TOKENIZE: "/tokenize",
    Action.DETOKENIZE: "/detokenize",
    Action.RETOKENIZE: "/retokenize",
    Action.ROTATE: "/rotate-epoch",
}

AnswerT = TypeVar("AnswerT")


class Breach(Exception):
    """An answer outside the API's contract. The message shows only as much of it as needed."""


class Told(NamedTuple):
    """The result of an operation, as in history.Complete."""

    outcome: Outcome
    answers: tuple[str | None, ...] = ()
    epoch: int = 0
    why: str = ""


class Names:
    """Short names for tokens, "qv_<epoch>_<number>", which keep histories small and free of whole tokens."""

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self._names: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        #: The owner and value of each derived token.
        self._spelled: dict[str, tuple[str, str]] = {}

    def name(self, token: str) -> str:
        """Returns the token's short name, always the same one. Raises Breach if the text is not a token."""
        known = self._names.get(token)
        if known is None:
            match = _TOKEN.fullmatch(token)
            if match is None or len(token) > _TOKEN_LENGTH:
                raise Breach(f"{len(token)} characters that are no token")
            known = self._names[token] = f"qv_{match[1]}_{len(self._names)}"
            self._tokens[known] = token
        return known

    def spelled(self, owner: str, epoch: int, value: str) -> str:
        """Returns the name of a value's token, whether any answer has shown it or not."""
        name = self.name(self._speller.token(owner, epoch, value_of(value)))
        self._spelled[name] = owner, value
        return name

    def behind(self, owner: str, name: str) -> str | None:
        """Returns the only value that this owner's token can have; None if the token was not derived."""
        whose, value = self._spelled.get(name, (None, None))
        return value if whose == owner else None

    def token(self, name: str) -> str:
        return self._tokens[name]

    def table(self) -> list[tuple[str, str]]:
        """Returns all names with their tokens, in the order in which they first occurred."""
        return list(self._tokens.items())


def value_of(name: str) -> str | int | bool:
    """Returns the value to send for a name: "=#17" is the number 17, "=?1" is true, any other name is the value itself."""
    if name.startswith("=#"):
        return int(name[2:])
    return name == "=?1" if name.startswith("=?") else name


def name_of(value: str | int | bool) -> str:
    """Returns the name of a value: the inverse of ``value_of``, for which the type counts."""
    if isinstance(value, bool):
        return f"=?{value:d}"
    return f"=#{value}" if isinstance(value, int) else value


class _Problem(msgspec.Struct):
    code: str
    outcome: str | None = None
    active_epoch: int | None = None


class _Tokenized(msgspec.Struct):
    epoch: int
    tokens: list[str | None]


class _Value(msgspec.Struct):
    value: str | int | bool


class _Result(msgspec.Struct):
    status: str
    value: str | int | bool | None = None
    token: str | None = None


class _Detokenized(msgspec.Struct):
    results: list[_Result]
    found: int
    not_found: int


class _Retokenized(msgspec.Struct):
    epoch: int
    results: list[_Result]


class _Epoch(msgspec.Struct):
    active_epoch: int


def body_of(action: Action, given: Sequence[str], epoch: int, names: Names) -> dict[str, Any]:
    """Returns the JSON of a request. A single token is asked for by itself, not as a batch of one."""
    if action is Action.ROTATE:
        return {"from_epoch": epoch}
    if action is Action.TOKENIZE:
        return {"values": [value_of(name) for name in given]}
    tokens = [names.token(name) for name in given]
    return {"token": tokens[0]} if action is Action.DETOKENIZE and len(tokens) == 1 else {"tokens": tokens}


def told(action: Action, count: int, status: int, content: bytes, names: Names) -> Told:
    """Returns the result of an operation on ``count`` values or tokens, read from its answer. Raises Breach."""
    if status != 200:
        return _refused(action, count, status, content)
    match action:
        case Action.TOKENIZE:
            tokenized = _decoded(content, _Tokenized)
            answers: list[str | None] = [None if token is None else names.name(token) for token in tokenized.tokens]
            epoch = tokenized.epoch
        case Action.DETOKENIZE if count == 1:
            answers, epoch = [name_of(_decoded(content, _Value).value)], 0
        case Action.DETOKENIZE:
            answers, epoch = _read(_decoded(content, _Detokenized)), 0
        case Action.RETOKENIZE:
            moved = _decoded(content, _Retokenized)
            answers, epoch = [_item(each.status, each.token, names.name) for each in moved.results], moved.epoch
        case _:
            answers, epoch, count = [], _decoded(content, _Epoch).active_epoch, 0
    if len(answers) != count:
        raise Breach(f"{len(answers)} items for {count}")
    return Told(Outcome.OK, tuple(answers), epoch)


def _refused(action: Action, count: int, status: int, content: bytes) -> Told:
    problem = _decoded(content, _Problem)
    writes = action in (Action.TOKENIZE, Action.RETOKENIZE, Action.ROTATE)
    match status, problem.code:
        case 404, "not-found" if action is Action.DETOKENIZE and count == 1:
            return Told(Outcome.OK, ("not_found",))
        case 409, "token-collision" if action is Action.DETOKENIZE and count == 1:
            return Told(Outcome.OK, ("collision",))
        case 409, code if code == EPOCH_AHEAD and action is Action.ROTATE:
            if problem.active_epoch is None:
                raise Breach(f"409 {code} without the active epoch")
            return Told(Outcome.FAIL, epoch=problem.active_epoch, why=code)
        case 429, "busy":
            return Told(Outcome.FAIL, why=problem.code)
        case 503, "no-quorum" | "draining":
            nothing_done = not writes or problem.outcome == "none"
            return Told(Outcome.FAIL if nothing_done else Outcome.UNKNOWN, why=problem.code)
    raise Breach(f"{status} {problem.code}")


def _read(answer: _Detokenized) -> list[str | None]:
    statuses = [result.status for result in answer.results]
    if (answer.found, answer.not_found) != (statuses.count("ok"), statuses.count("not_found")):
        raise Breach(f"it counts {answer.found} found and {answer.not_found} not found, and shows others")
    return [_item(result.status, result.value, name_of) for result in answer.results]


def _item(status: str, content: object, name: Callable[[Any], str]) -> str:
    """Returns the name of an item's value or token, or the word in its place."""
    if status != "ok":
        if status not in _WORDS:
            raise Breach(f"an item of status {status!r}")
        return status
    if content is None:
        raise Breach("an item of status 'ok' without a value or token")
    return name(content)


def _decoded(content: bytes, kind: type[AnswerT]) -> AnswerT:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise Breach(f"{len(content)} bytes that are no {kind.__name__[1:].lower()} answer: {error}") from None


class NodeClient:
    """Connections to one node at HOST:PORT. ``keys``: the owners' API keys. No retries: they would hide the effects of faults."""

    def __init__(self, address: str, keys: dict[str, str], names: Names) -> None:
        self._names = names
        self._headers = {owner: {"Authorization": f"Bearer {key}"} for owner, key in keys.items()}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
        self._client = httpx2.AsyncClient(base_url=f"http://{address}", limits=limits, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, action: Action, owner: str, given: Sequence[str], epoch: int = 0, seconds: float = DEADLINE) -> Told:
        """Sends one request and waits up to ``seconds`` for its answer. Raises Breach."""
        headers = self._headers[owner]
        try:
            async with asyncio.timeout(seconds):
                if action is Action.EPOCH:
                    response = await self._client.get("/epoch", headers=headers)
                else:
                    body = body_of(action, given, epoch, self._names)
                    response = await self._client.post(_PATHS[action], headers=headers, json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return Told(Outcome.FAIL, why=REFUSED)  # without a connection no request was sent
        except TimeoutError:
            return Told(Outcome.UNKNOWN, why="timeout")
        except httpx2.TransportError:
            return Told(Outcome.UNKNOWN, why="broken")
        return told(action, len(given), response.status_code, response.content, self._names)
