"""POST /detokenize: tokens, or tokens at the configured fields of records, become values again.

Any text is asked for as a token. What is none of this system's, or another owner's, or was never issued, goes the same way to
the vault and back, so nothing in here looks at a token.

A value is kept once, however often an answer repeats it: a large answer is encoded as it leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET, Raw

from quorumvault.crypto.canonical import to_json
from quorumvault.errors import NoQuorum, NotFound, RequestError, TokenCollision, TooLarge
from quorumvault.server.coordinator.coordinator import Missing
from quorumvault.server.http import item_errors
from quorumvault.server.http.answer import splice_list
from quorumvault.server.http.job import Content, Job
from quorumvault.server.http.memory import cost_of_paths, cost_of_reading
from quorumvault.server.http.records import Place, read_records
from quorumvault.server.http.schemas import (
    MissingField,
    RecordsDetokenized,
    TokenDetokenized,
    TokensDetokenized,
    ValueResult,
    encode,
    parse_detokenize,
)

#: An answer with no more than this of values is encoded at once.
_SMALL = 128 << 10
_NULL_RESULT = ValueResult("null")
_RESULTS = {missing: ValueResult(missing.value) for missing in Missing}
_text = msgspec.json.Decoder(str).decode

#: What the vault says of a token; of one that is asked for twice, the same object.
_Told = bytes | Missing


async def detokenize(job: Job) -> Content:
    """The answer to a request for values. Raises RequestError."""
    request = await parse_detokenize(job.body, job.turns)
    if request.tokens is not UNSET:
        return await _detokenize_tokens(job, request.tokens)
    if request.records is not UNSET:
        return await _detokenize_records(job, request.records)
    return encode(await _detokenize_one(job, request.token or ""))


async def _detokenize_one(job: Job, token: str) -> TokenDetokenized:
    (told,) = await _ask(job, [token])
    if isinstance(told, Missing):
        raise _failure(told)
    return TokenDetokenized(token, to_json(told))


def _failure(missing: Missing) -> RequestError:
    if missing is Missing.NOT_FOUND:
        return NotFound("no value of yours has this token")
    if missing is Missing.COLLISION:
        return TokenCollision("two values met in this token; which of them is meant cannot be told, in any later request neither")
    return NoQuorum("too few nodes could read this token's record to say what it holds, or that there is none")


async def _ask(job: Job, tokens: list[str]) -> list[_Told]:
    """What the vault says of each token, counted for the event log."""
    counts, limits = job.counts, job.services.limits
    await job.pay(cost_of_reading(len(tokens), limits))
    job.ask(len(tokens))
    told = await job.services.vault.detokenize(job.owner, tokens, job.take_read)
    counts.found = [*map(type, told)].count(bytes)
    counts.not_found = told.count(Missing.NOT_FOUND)
    return told


async def _detokenize_tokens(job: Job, tokens: Sequence[str | None]) -> Content:
    item_errors.require_count(len(tokens), job.services.limits.items, "tokens")
    told = await _ask(job, [token for token in tokens if token is not None])
    found, not_found = job.counts.found or 0, job.counts.not_found or 0
    if _size(told) <= _SMALL:
        small = [ValueResult("ok", to_json(value)) if isinstance(value, bytes) else _RESULTS[value] for value in told]
        return encode(TokensDetokenized([*_with_nulls(tokens, small)], found, not_found))
    await _require_room(job, told, len(tokens) * _ROOM_OF_A_RESULT)
    results = (ValueResult("ok", to_json(value)) if isinstance(value, bytes) else _RESULTS[value] for value in told)
    return splice_list(encode(TokensDetokenized([], found, not_found)), map(encode, _with_nulls(tokens, results)))


def _with_nulls(tokens: Sequence[str | None], results: Iterable[ValueResult]) -> Iterable[ValueResult]:
    """A result for each token: those of the tokens that were asked for, in order, and in between those of nulls."""
    if None not in tokens:
        return results
    told = iter(results)
    return (_NULL_RESULT if token is None else next(told) for token in tokens)


#: The longest result without its value, and the comma behind it.
_ROOM_OF_A_RESULT = len(encode(ValueResult("unavailable", ""))) + 1


async def _detokenize_records(job: Job, raws: Sequence[Raw]) -> Content:
    limits, counts = job.services.limits, job.counts
    records = await read_records(job, raws)
    item_errors.refuse_any(records.bad, limits)
    places = [place for place in records.places if place.slot.raw.startswith(b'"')]
    await job.turns.next()
    told = await _ask(job, [_text(place.slot.raw) for place in places])
    counts.replaced = counts.found
    await job.pay(cost_of_paths(len(told) - (counts.found or 0)))
    missing = await _put_in_place(job, places, told)
    whole = encode(RecordsDetokenized([], counts.found or 0, counts.not_found or 0, missing))
    await _require_room(job, told, len(whole) + len(job.body))
    return splice_list(whole, records.encode())


async def _put_in_place(job: Job, places: Sequence[Place], told: Sequence[_Told]) -> list[MissingField]:
    """Values instead of tokens, as far as they were found, and what was not."""
    distinct = {id(value): value for value in told if isinstance(value, bytes)}
    await job.pay(sum(map(_size_decoded, distinct.values())))
    values = {key: to_json(value) for key, value in distinct.items()}
    missing: list[MissingField] = []
    for (record, slot), value in zip(places, told, strict=True):
        if isinstance(value, bytes):
            slot.replace(values[id(value)])
        else:
            missing.append(MissingField(record, slot.path, None if value is Missing.NOT_FOUND else value.value))
        if job.turns.over():
            await job.turns.next()
    return missing


def _size_decoded(value: bytes) -> int:
    return len(value) if value.isascii() else 4 * len(value)


async def _require_room(job: Job, told: Sequence[_Told], beside: int) -> None:
    """Raises TooLarge for an answer of these values, and of so many bytes beside them, that is larger than a node gives."""
    most = job.services.limits.answer_bytes
    if beside + _LONGEST_ESCAPE * _size(told) <= most:
        return
    sizes: dict[int, int] = {}
    size = beside
    for value in told:
        if isinstance(value, bytes):
            if id(value) not in sizes:
                sizes[id(value)] = len(encode(to_json(value)))
            size += sizes[id(value)]
        if size > most:
            raise TooLarge(f"an answer has at most {most} bytes here (GET /limits); ask for fewer tokens at once")
        if job.turns.over():
            await job.turns.next()


#: A control character is six bytes of JSON.
_LONGEST_ESCAPE = 6


def _size(told: Sequence[_Told]) -> int:
    """Bytes of the values, each time that one is repeated."""
    return sum([len(value) for value in told if isinstance(value, bytes)])
