"""Tokenize, detokenize and retokenize with a column of text for a body: ``application/vnd.apache.arrow.stream``.

    /tokenize    value -> token            all of one epoch, which is in the schema's metadata (quorumvault.epoch)
    /detokenize  token -> value, status    ok · null · not_found · not_text · unavailable · collision
    /retokenize  token -> token, status    likewise, without not_text; the epoch likewise

The answer has the rows of the question, in their order and in its type of text. Errors are problem details in JSON, as
everywhere. pyarrow is an optional extra, and takes a while to load: that is left to the first such request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quorumvault.api import faults
from quorumvault.api.guard import Counts
from quorumvault.api.services import Services
from quorumvault.coordinator import Missing
from quorumvault.errors import ItemError
from quorumvault.model import Owner

if TYPE_CHECKING:
    from quorumvault.api.arrowstream import Texts

_NOT_TEXT = "not_text"


async def tokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a stream with a column ``value``. One bad value: nothing is done. Raises RequestError."""
    from quorumvault.api.arrowstream import read_texts, write_stream

    texts = read_texts(body, "value", services.limits)
    canonicals = texts.canonicals()
    unfit = {position: faults.item_error(position, error) for position, error in faults.unfit(canonicals, services.limits)}
    faults.refuse_any(_in_rows(texts, unfit), services.limits)
    counts.items = texts.asked
    done = await services.vault.tokenize(owner, canonicals)
    counts.epoch = done.epoch
    met = {position: faults.collision(position) for position, token in enumerate(done.tokens) if token is None}
    faults.refuse_any(_in_rows(texts, met), services.limits)
    return write_stream({"token": texts.spread(done.tokens)}, done.epoch)


async def detokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a stream with a column ``token``. Raises RequestError."""
    from quorumvault.api.arrowstream import TEXT_PREFIX, read_texts, write_stream

    texts = read_texts(body, "token", services.limits)
    counts.items = texts.asked
    answers = await services.vault.detokenize(owner, texts.distinct.to_pylist())
    start = len(TEXT_PREFIX)
    values = [answer[start:] if isinstance(answer, bytes) and answer.startswith(TEXT_PREFIX) else None for answer in answers]
    words = [_why_none(answer) if value is None else "ok" for answer, value in zip(answers, values, strict=True)]
    _count(counts, texts.tally(words))
    return write_stream({"value": texts.spread(values), "status": texts.statuses(words)})


async def retokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a stream with a column ``token``. Raises RequestError."""
    from quorumvault.api.arrowstream import read_texts, write_stream

    texts = read_texts(body, "token", services.limits)
    counts.items = texts.asked
    moved = await services.vault.retokenize(owner, texts.distinct.to_pylist())
    counts.epoch = moved.epoch
    words = [token.value if isinstance(token, Missing) else "ok" for token in moved.tokens]
    _count(counts, texts.tally(words))
    tokens = [None if isinstance(token, Missing) else token for token in moved.tokens]
    return write_stream({"token": texts.spread(tokens), "status": texts.statuses(words)}, moved.epoch)


def _why_none(answer: bytes | Missing) -> str:
    return answer.value if isinstance(answer, Missing) else _NOT_TEXT


def _count(counts: Counts, tally: Mapping[str, int]) -> None:
    counts.found = tally.get("ok", 0) + tally.get(_NOT_TEXT, 0)
    counts.not_found = tally.get(Missing.NOT_FOUND.value, 0)


def _in_rows(texts: Texts, bad: dict[int, ItemError]) -> list[ItemError]:
    """What is wrong with distinct texts, as what is wrong with rows."""
    if not bad:
        return []
    return [ItemError(row, bad[index].code, bad[index].detail) for row, index in texts.rows_of(bad)]
