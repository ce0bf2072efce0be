"""POST /detokenize: tokens, or tokens at the configured fields of records, become values again.

Any text is asked for as a token. What is none of this system's, or another owner's, or was never issued, goes the same way to
the vault and back, so nothing in here looks at a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from quorumvault.api import faults
from quorumvault.api.bodies import (
    MissingField,
    RecordsDetokenized,
    TokenDetokenized,
    TokensDetokenized,
    ValueResult,
    encode,
    parse_detokenize,
)
from quorumvault.api.guard import Counts
from quorumvault.api.records import read_records
from quorumvault.api.services import Services
from quorumvault.coordinator import Missing
from quorumvault.crypto.canonical import to_json
from quorumvault.errors import NoQuorum, NotFound, RequestError, TokenCollision
from quorumvault.model import Owner

_NULL_RESULT = ValueResult("null")
_RESULTS = {missing: ValueResult(missing.value) for missing in Missing}
_text = msgspec.json.Decoder(str).decode


async def detokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a request with this body. Raises RequestError."""
    request = parse_detokenize(body)
    if request.tokens is not UNSET:
        return encode(await _detokenize_tokens(services, owner, request.tokens, counts))
    if request.records is not UNSET:
        return encode(await _detokenize_records(services, owner, request.records, counts))
    return encode(await _detokenize_one(services, owner, request.token or "", counts))


async def _detokenize_one(services: Services, owner: Owner, token: str, counts: Counts) -> TokenDetokenized:
    (found,) = await _ask(services, owner, [token], counts)
    if isinstance(found, Missing):
        raise _failure(found)
    return TokenDetokenized(token, to_json(found))


def _failure(missing: Missing) -> RequestError:
    if missing is Missing.NOT_FOUND:
        return NotFound("no value of yours has this token")
    if missing is Missing.COLLISION:
        return TokenCollision("two values met in this token; which of them is meant cannot be told, in any later request neither")
    return NoQuorum("too few nodes could read this token's record to say what it holds, or that there is none")


async def _ask(services: Services, owner: Owner, tokens: list[str], counts: Counts) -> list[bytes | Missing]:
    """What the vault says of each token, counted for the event log."""
    counts.items = len(tokens)
    answers = await services.vault.detokenize(owner, tokens)
    counts.found = sum(isinstance(answer, bytes) for answer in answers)
    counts.not_found = answers.count(Missing.NOT_FOUND)
    return answers


async def _detokenize_tokens(services: Services, owner: Owner, tokens: Sequence[str | None], counts: Counts) -> TokensDetokenized:
    faults.require_count(len(tokens), services.limits.items, "tokens")
    answers = await _ask(services, owner, [token for token in tokens if token is not None], counts)
    results = [ValueResult("ok", to_json(answer)) if isinstance(answer, bytes) else _RESULTS[answer] for answer in answers]
    if len(results) < len(tokens):
        told = iter(results)
        results = [_NULL_RESULT if token is None else next(told) for token in tokens]
    return TokensDetokenized(results, counts.found or 0, counts.not_found or 0)


async def _detokenize_records(services: Services, owner: Owner, raws: Sequence[Raw], counts: Counts) -> RecordsDetokenized:
    records = await read_records(raws, services.fields, services.limits)
    faults.refuse_any(records.bad, services.limits)
    places = [place for place in records.places if place.slot.raw.startswith(b'"')]
    answers = await _ask(services, owner, [_text(place.slot.raw) for place in places], counts)
    missing: list[MissingField] = []
    for (record, slot), answer in zip(places, answers, strict=True):
        if isinstance(answer, bytes):
            slot.replace(to_json(answer))
        else:
            missing.append(MissingField(record, slot.path, None if answer is Missing.NOT_FOUND else answer.value))
    counts.replaced = counts.found
    return RecordsDetokenized(records.encode(), counts.found or 0, counts.not_found or 0, missing)
