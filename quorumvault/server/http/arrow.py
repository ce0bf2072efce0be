"""Tokenize, detokenize and retokenize a column of text: ``application/vnd.apache.arrow.stream``.

    /tokenize    value -> token            all tokens are of one epoch, which is in the schema's metadata (quorumvault.epoch)
    /detokenize  token -> value, status    ok · null · not_found · not_text · unavailable · collision
    /retokenize  token -> token, status    as /detokenize, without not_text; the epoch as in /tokenize

The answer has the request's rows, in their order, and the request's text type. Errors are problem details in JSON, as everywhere.
pyarrow is an optional extra and takes a third of a second to load, so the first such request loads it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from quorumvault.config.limits import Limits
from quorumvault.crypto.canonical import TEXT_PREFIX
from quorumvault.errors import RequestError, TooLarge
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.dependencies import AdmittedRequest, Content, Counts
from quorumvault.server.http.item_errors import COLLISION, ItemErrors, unfit
from quorumvault.server.http.memory import cost_of_reading, cost_of_writing

if TYPE_CHECKING:
    from quorumvault.server.http.arrow_stream import Texts

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

_NOT_TEXT = "not_text"
#: The module that loads pyarrow, which takes a third of a second the first time.
_STREAMS = "quorumvault.server.http.arrow_stream"
#: Bytes of texts from which on the work is done in a thread.
_LARGE = 256 << 10
#: Bytes of the longest token.
_TOKEN_BYTES = 64
#: Copies of a request's texts: as they came, in one array, without repeats, as Python objects, in canonical form.
_COPIES_OF_A_BODY = 5
#: Copies of an answer's values: an array of the distinct ones, the column, the stream, and its bytes.
_COPIES_OF_AN_ANSWER = 4


async def tokenize(admitted: AdmittedRequest) -> Content:
    """Return the answer to a stream with a column ``value``. Raises RequestError; for a single bad value, nothing is done."""
    services, counts = admitted.services, admitted.counts
    texts = await _read(admitted, "value")
    canonicals = texts.canonicals()
    errors = ItemErrors(services.limits)
    _refuse_rows(texts, dict(unfit(canonicals, services.limits)), errors)
    await admitted.pay(cost_of_writing(len(canonicals)))
    async with admitted.turn(texts.asked):
        done = await services.vault.tokenize(admitted.owner, canonicals)
    counts.epoch = done.epoch
    _refuse_rows(texts, {index: COLLISION for index, token in enumerate(done.tokens) if token is None}, errors)
    return await _aside(texts.asked * _TOKEN_BYTES, texts.stream, "token", done.tokens, None, done.epoch)


async def detokenize(admitted: AdmittedRequest) -> Content:
    """Return the answer to a stream with a column ``token``. Raises RequestError."""
    texts, asked = await _read_tokens(admitted)
    async with admitted.turn(texts.asked):
        answers = await admitted.services.vault.detokenize(admitted.owner, asked, admitted.take_read)
    start = len(TEXT_PREFIX)
    values = [answer[start:] if isinstance(answer, bytes) and answer.startswith(TEXT_PREFIX) else None for answer in answers]
    words = [_why_none(answer) if value is None else "ok" for answer, value in zip(answers, values, strict=True)]
    _count(admitted.counts, texts.tally(words))
    size = texts.size_of([0 if value is None else len(value) for value in values])
    await _require_room(admitted, size)
    return await _aside(size, texts.stream, "value", values, words)


async def retokenize(admitted: AdmittedRequest) -> Content:
    """Return the answer to a stream with a column ``token``. Raises RequestError."""
    texts, asked = await _read_tokens(admitted)
    async with admitted.turn(texts.asked):
        moved = await admitted.services.vault.retokenize(admitted.owner, asked, admitted.take_read)
    admitted.counts.epoch = moved.epoch
    words = [token.value if isinstance(token, Missing) else "ok" for token in moved.tokens]
    _count(admitted.counts, texts.tally(words))
    tokens = [None if isinstance(token, Missing) else token for token in moved.tokens]
    return await _aside(texts.asked * _TOKEN_BYTES, texts.stream, "token", tokens, words, moved.epoch)


async def _read_tokens(admitted: AdmittedRequest) -> tuple[Texts, list[str]]:
    """Return the column of tokens, and its distinct tokens, once they are paid for and counted. Raises RequestError."""
    texts = await _read(admitted, "token")
    asked = texts.distinct.to_pylist()
    await admitted.pay(cost_of_reading(len(asked), admitted.services.limits))
    return texts, asked


async def _read(admitted: AdmittedRequest, name: str | None) -> Texts:
    """Return the column of the body, the only one if ``name`` is None. Raises RequestError."""
    size = len(admitted.body)
    await admitted.pay(_COPIES_OF_A_BODY * size + cost_of_writing(0))
    first = _STREAMS not in sys.modules
    texts = await _aside(_LARGE + 1 if first else size, read_texts, admitted.body, name, admitted.services.limits)
    admitted.memory.body_is_decoded()
    return texts


async def check(admitted: AdmittedRequest) -> None:
    """Raises RequestError for a body that is no Arrow stream of text."""
    await _read(admitted, None)


def read_texts(body: bytes, name: str | None, limits: Limits) -> Texts:
    """Return the column, called ``name`` unless that is None. Loads pyarrow. Raises Malformed, Invalid, TooManyItems."""
    from quorumvault.server.http import arrow_stream

    return arrow_stream.read_texts(body, name, limits)


async def _aside(size: int, work: Callable[P, ResultT], /, *arguments: P.args, **named: P.kwargs) -> ResultT:
    """Return the result of ``work``. Work on many bytes runs in a thread, because pyarrow and NumPy release the GIL."""
    if size > _LARGE:
        return await asyncio.to_thread(work, *arguments, **named)
    return work(*arguments, **named)


async def _require_room(admitted: AdmittedRequest, size: int) -> None:
    """Raises TooLarge for an answer whose values, repeats counted, are larger than ``limits.answer_bytes``."""
    most = admitted.services.limits.answer_bytes
    if size > most:
        raise TooLarge(f"an answer has at most {most} bytes here (GET /limits); ask for fewer tokens at once")
    await admitted.pay(_COPIES_OF_AN_ANSWER * size)


def _why_none(answer: bytes | Missing) -> str:
    return answer.value if isinstance(answer, Missing) else _NOT_TEXT


def _count(counts: Counts, tally: Mapping[str, int]) -> None:
    counts.found = tally.get("ok", 0) + tally.get(_NOT_TEXT, 0)
    counts.not_found = tally.get(Missing.NOT_FOUND.value, 0)


def _refuse_rows(texts: Texts, bad: Mapping[int, RequestError], errors: ItemErrors) -> None:
    """Raises the request's error if any distinct text is bad. The error lists each row with such a text."""
    if bad:
        for row, index in texts.rows_of(bad):
            errors.add(row, bad[index])
        errors.refuse_unless_lenient()
