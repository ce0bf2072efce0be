"""POST /tokenize: values, or the configured fields of records, become tokens.

Everything is judged before anything is asked of the vault. One bad item and ``on_error`` "fail": 422, nothing done. With "item"
a bad value, or a record with a bad field, gets null in its place, nothing of it is stored, and the others go through.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, Raw, UnsetType

from quorumvault.api import faults
from quorumvault.api.bodies import (
    RecordsTokenized,
    RecordTokenized,
    TextTokenizeBody,
    TokenizeBody,
    ValuesTokenized,
    encode,
    parse_tokenize,
)
from quorumvault.api.guard import Counts
from quorumvault.api.problems import ItemProblem
from quorumvault.api.records import Place, Records, read_records
from quorumvault.api.services import Services
from quorumvault.api.turns import turn
from quorumvault.api.values import judge_texts, judge_values
from quorumvault.config import Limits
from quorumvault.crypto.canonical import from_json
from quorumvault.errors import ItemError
from quorumvault.model import Owner


async def tokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a request with this body. Raises RequestError."""
    request = parse_tokenize(body)
    await turn(len(body))
    lenient = request.on_error == "item"
    if request.record is not UNSET:
        answer = await _tokenize_records(services, owner, [request.record], lenient, counts)
        return encode(RecordTokenized(answer.epoch, answer.records[0], answer.replaced, answer.errors))
    if request.records is not UNSET:
        return encode(await _tokenize_records(services, owner, request.records, lenient, counts))
    return encode(await _tokenize_values(services, owner, request, len(body), lenient, counts))


async def _tokenize_values(
    services: Services, owner: Owner, request: TokenizeBody | TextTokenizeBody, size: int, lenient: bool, counts: Counts
) -> ValuesTokenized:
    if isinstance(request, TextTokenizeBody):
        values = judge_texts(request.values or [], services.limits)
    else:
        values = judge_values(request.values or [], services.limits)
    await turn(size)
    if not lenient:
        faults.refuse_any(values.bad, services.limits)
    wanted = [canonical for canonical in values.canonicals if canonical is not None]
    counts.items = len(wanted)
    done = await services.vault.tokenize(owner, wanted)
    counts.epoch = done.epoch
    tokens = done.tokens
    if len(wanted) < len(values.canonicals):
        fresh = iter(done.tokens)
        tokens = [None if canonical is None else next(fresh) for canonical in values.canonicals]
    if None in done.tokens:
        for index, (canonical, token) in enumerate(zip(values.canonicals, tokens, strict=True)):
            if canonical is not None and token is None:
                values.bad.append(faults.collision(index))
    return ValuesTokenized(done.epoch, tokens, _settle(values.bad, lenient, services.limits))


async def _tokenize_records(
    services: Services, owner: Owner, raws: Sequence[Raw], lenient: bool, counts: Counts
) -> RecordsTokenized:
    records = await read_records(raws, services.fields, services.limits)
    canonicals = _judge_records(records, services.limits)
    if not lenient:
        faults.refuse_any(records.bad, services.limits)
    spoiled = {error.index for error in records.bad}
    pairs = zip(records.places, canonicals, strict=True)
    wanted = [(place, canonical) for place, canonical in pairs if canonical is not None and place.record not in spoiled]
    counts.items = len(wanted)
    done = await services.vault.tokenize(owner, [canonical for _, canonical in wanted])
    counts.epoch = done.epoch
    filled = [(place, token) for (place, _), token in zip(wanted, done.tokens, strict=True)]
    collided = [place for place, token in filled if token is None]
    records.bad.extend(faults.collision(place.record, place.slot.path) for place in collided)
    errors = _settle(records.bad, lenient, services.limits)
    spoiled.update(place.record for place in collided)
    replaced = _replace([pair for pair in filled if pair[0].record not in spoiled], services.fields.paths)
    counts.replaced = sum(replaced.values())
    return RecordsTokenized(done.epoch, records.encode(spoiled), replaced, errors)


def _judge_records(records: Records, limits: Limits) -> list[bytes | None]:
    """Canonical forms, one for each place, None for what has none. All that is bad is added to ``records.bad``."""
    canonicals = [from_json(place.slot.raw) for place in records.places]
    for place, canonical in zip(records.places, canonicals, strict=True):
        if canonical is None:
            records.bad.append(faults.item_error(place.record, faults.not_tokenizable(place.slot.raw), place.slot.path))
    for position, error in faults.unfit(canonicals, limits):
        place = records.places[position]
        records.bad.append(faults.item_error(place.record, error, place.slot.path))
    return canonicals


def _replace(filled: Sequence[tuple[Place, str | None]], paths: Sequence[str]) -> dict[str, int]:
    """Put tokens in their places. How many each configured path got, zeros included."""
    replaced = dict.fromkeys(paths, 0)
    for place, token in filled:
        if token is not None:
            place.slot.replace(token)
            replaced[paths[place.slot.field]] += 1
    return replaced


def _settle(bad: Sequence[ItemError], lenient: bool, limits: Limits) -> list[ItemProblem] | UnsetType:
    """The list of bad items for a request that asked for one; otherwise one bad item is the request's failure."""
    if not lenient:
        faults.refuse_any(bad, limits)
        return UNSET
    return [ItemProblem(error.index, error.code, error.path) for error in faults.in_order(bad)]
