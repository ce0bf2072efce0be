"""POST /detokenize: tokens, or tokens at the configured fields of records, become values again.

A caller may ask for any text as a token. A malformed token, another owner's token and one that was never issued take the same
path to the vault and back, so this module never inspects a token (rule: not found costs the same work).

A value is kept in memory once, however often an answer repeats it, because a large answer is encoded as it leaves.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET, Raw

from quorumvault.crypto.canonical import to_json
from quorumvault.errors import NoQuorum, NotFound, RequestError, TokenCollision, TooLarge
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.answer import splice_list
from quorumvault.server.http.dependencies import AdmittedRequest, Content
from quorumvault.server.http.item_errors import ItemErrors, require_count
from quorumvault.server.http.memory import cost_of_paths, cost_of_reading
from quorumvault.server.http.records import Place, read_records
from quorumvault.server.http.schemas import (
    DetokenizeBody,
    MissingField,
    RecordsDetokenized,
    TokenDetokenized,
    TokensDetokenized,
    ValueResult,
    encode,
    parse,
)

#: Bytes of values in an answer that is encoded at once.
_SMALL = 128 << 10
_NULL_RESULT = ValueResult("null")
_RESULTS = {missing: ValueResult(missing.value) for missing in Missing}
_text = msgspec.json.Decoder(str).decode

#: The vault's answer for a token: the same object each time, if a request repeats the token.
_Told = bytes | Missing


async def detokenize(admitted: AdmittedRequest) -> Content:
    """Return the answer to a request for values. Raises RequestError."""
    request = await parse(DetokenizeBody, admitted.body, admitted.turns)
    if request.tokens is not UNSET:
        return await _detokenize_tokens(admitted, request.tokens)
    if request.records is not UNSET:
        return await _detokenize_records(admitted, request.records)
    return encode(await _detokenize_one(admitted, request.token or ""))


async def _detokenize_one(admitted: AdmittedRequest, token: str) -> TokenDetokenized:
    (told,) = await _ask(admitted, [token])
    if isinstance(told, Missing):
        raise _failure(told)
    return TokenDetokenized(token, to_json(told))


def _failure(missing: Missing) -> RequestError:
    if missing is Missing.NOT_FOUND:
        return NotFound("no value of yours has this token")
    if missing is Missing.COLLISION:
        return TokenCollision("two values met in this token; which of them is meant cannot be told, in any later request neither")
    return NoQuorum("too few nodes could read this token's record to say what it holds, or that there is none")


async def _ask(admitted: AdmittedRequest, tokens: list[str]) -> list[_Told]:
    """Return the vault's answer for each token, and count it for the event. Raises RequestError."""
    counts, limits = admitted.counts, admitted.services.limits
    await admitted.pay(cost_of_reading(len(tokens), limits))
    async with admitted.turn(len(tokens)):
        told = await admitted.services.vault.detokenize(admitted.owner, tokens, admitted.take_read)
    counts.found = [*map(type, told)].count(bytes)
    counts.not_found = told.count(Missing.NOT_FOUND)
    return told


async def _detokenize_tokens(admitted: AdmittedRequest, tokens: Sequence[str | None]) -> Content:
    require_count(len(tokens), admitted.services.limits.items, "tokens")
    told = await _ask(admitted, [token for token in tokens if token is not None])
    found, not_found = admitted.counts.found or 0, admitted.counts.not_found or 0
    if _size(told) <= _SMALL:
        small = [ValueResult("ok", to_json(value)) if isinstance(value, bytes) else _RESULTS[value] for value in told]
        return encode(TokensDetokenized([*_with_nulls(tokens, small)], found, not_found))
    await _require_room(admitted, told, len(tokens) * _ROOM_OF_A_RESULT)
    results = (ValueResult("ok", to_json(value)) if isinstance(value, bytes) else _RESULTS[value] for value in told)
    return splice_list(encode(TokensDetokenized([], found, not_found)), map(encode, _with_nulls(tokens, results)))


def _with_nulls(tokens: Sequence[str | None], results: Iterable[ValueResult]) -> Iterable[ValueResult]:
    """Return a result for each token: ``results`` are those of the tokens that are not null, in order."""
    if None not in tokens:
        return results
    told = iter(results)
    return (_NULL_RESULT if token is None else next(told) for token in tokens)


#: Bytes of the longest result without its value, and of the comma after it.
_ROOM_OF_A_RESULT = len(encode(ValueResult("unavailable", ""))) + 1


async def _detokenize_records(admitted: AdmittedRequest, raws: Sequence[Raw]) -> Content:
    counts, errors = admitted.counts, ItemErrors(admitted.services.limits)
    records = await read_records(admitted, raws, errors)
    errors.refuse_unless_lenient()
    places = [place for place in records.places if place.slot.raw.startswith(b'"')]
    await admitted.turns.next()
    told = await _ask(admitted, [_text(place.slot.raw) for place in places])
    counts.replaced = counts.found
    await admitted.pay(cost_of_paths(len(told) - (counts.found or 0)))
    missing = await _put_in_place(admitted, places, told)
    whole = encode(RecordsDetokenized([], counts.found or 0, counts.not_found or 0, missing))
    await _require_room(admitted, told, len(whole) + len(admitted.body))
    return splice_list(whole, records.encode())


async def _put_in_place(admitted: AdmittedRequest, places: Sequence[Place], told: Sequence[_Told]) -> list[MissingField]:
    """Replace tokens by the values that were found. Returns the places of the others."""
    distinct = {id(value): value for value in told if isinstance(value, bytes)}
    await admitted.pay(sum(map(_size_decoded, distinct.values())))
    values = {key: to_json(value) for key, value in distinct.items()}
    missing: list[MissingField] = []
    for (record, slot), value in zip(places, told, strict=True):
        if isinstance(value, bytes):
            slot.replace(values[id(value)])
        else:
            missing.append(MissingField(record, slot.path, None if value is Missing.NOT_FOUND else value.value))
        if admitted.turns.over():
            await admitted.turns.next()
    return missing


def _size_decoded(value: bytes) -> int:
    return len(value) if value.isascii() else 4 * len(value)


async def _require_room(admitted: AdmittedRequest, told: Sequence[_Told], beside: int) -> None:
    """Raises TooLarge if these values and ``beside`` more bytes make a larger answer than ``limits.answer_bytes``."""
    most = admitted.services.limits.answer_bytes
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
        if admitted.turns.over():
            await admitted.turns.next()


#: Bytes of JSON that a control character takes.
_LONGEST_ESCAPE = 6


def _size(told: Sequence[_Told]) -> int:
    """Return the bytes of the values, repeats counted."""
    return sum([len(value) for value in told if isinstance(value, bytes)])
