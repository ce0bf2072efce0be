"""POST /tokenize: values, or the configured fields of records, become tokens.

Everything is judged before anything is asked of the vault. One bad item and ``on_error`` "fail": 422, nothing done. With "item"
a bad value, or a record with a bad field, gets null in its place, nothing of it is stored, and the others go through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import UNSET, Raw, UnsetType

from quorumvault.config.cluster import Limits
from quorumvault.crypto.canonical import from_json
from quorumvault.errors import ItemError
from quorumvault.server.http import item_errors
from quorumvault.server.http.answer import splice, splice_list
from quorumvault.server.http.job import Content, Job
from quorumvault.server.http.memory import cost_of_paths, cost_of_writing
from quorumvault.server.http.problems import ItemProblem
from quorumvault.server.http.records import Records, read_records
from quorumvault.server.http.schemas import (
    RecordsTokenized,
    RecordTokenized,
    TextTokenizeBody,
    TokenizeBody,
    ValuesTokenized,
    encode,
    parse_tokenize,
)
from quorumvault.server.http.turns import Turns, turn
from quorumvault.server.http.values import judge_texts, judge_values

#: Canonical forms that are judged at one go: some milliseconds' worth, if all of them are tokens.
_JUDGED = 512


async def tokenize(job: Job) -> Content:
    """The answer to a request for tokens. Raises RequestError."""
    request = await parse_tokenize(job.body, job.turns)
    await turn(len(job.body))
    lenient = request.on_error == "item"
    if request.record is not UNSET:
        done = await _tokenize_records(job, [request.record], lenient)
        return splice(encode(RecordTokenized(done.epoch, None, done.replaced, done.errors)), b"null", done.records)
    if request.records is not UNSET:
        done = await _tokenize_records(job, request.records, lenient)
        return splice_list(encode(RecordsTokenized(done.epoch, [], done.replaced, done.errors)), done.records)
    return encode(await _tokenize_values(job, request, lenient))


async def _tokenize_values(job: Job, request: TokenizeBody | TextTokenizeBody, lenient: bool) -> ValuesTokenized:
    services, counts, size = job.services, job.counts, len(job.body)
    if isinstance(request, TextTokenizeBody):
        values = judge_texts(request.values or [], services.limits)
    else:
        values = judge_values(request.values or [], services.limits)
    await turn(size)
    if not lenient:
        item_errors.refuse_any(values.bad, services.limits)
    wanted = [canonical for canonical in values.canonicals if canonical is not None]
    await job.pay(cost_of_writing(len(wanted)))
    job.ask(len(wanted))
    done = await services.vault.tokenize(job.owner, wanted)
    counts.epoch = done.epoch
    tokens = done.tokens
    if len(wanted) < len(values.canonicals):
        fresh = iter(done.tokens)
        tokens = [None if canonical is None else next(fresh) for canonical in values.canonicals]
    if None in done.tokens:
        for index, (canonical, token) in enumerate(zip(values.canonicals, tokens, strict=True)):
            if canonical is not None and token is None:
                values.bad.append(item_errors.collision(index))
    return ValuesTokenized(done.epoch, tokens, _settle(values.bad, lenient, services.limits))


class _Done(NamedTuple):
    """What is answered about records. They themselves are encoded one by one, as they leave."""

    epoch: int
    records: Iterator[bytes]
    replaced: dict[str, int]
    errors: list[ItemProblem] | UnsetType


async def _tokenize_records(job: Job, raws: Sequence[Raw], lenient: bool) -> _Done:
    limits, fields, counts = job.services.limits, job.services.fields, job.counts
    records = await read_records(job, raws)
    canonicals = await _judge_records(records, limits, job.turns)
    if not lenient:
        item_errors.refuse_any(records.bad, limits)
    await job.pay(cost_of_paths(len(records.bad)))
    spoiled = {error.index for error in records.bad}
    await job.turns.next()
    pairs = zip(records.places, canonicals, strict=True)
    wanted = [(place, canonical) for place, canonical in pairs if canonical is not None and place.record not in spoiled]
    await job.pay(cost_of_writing(len(wanted)))
    job.ask(len(wanted))
    done = await job.services.vault.tokenize(job.owner, [canonical for _, canonical in wanted])
    counts.epoch = done.epoch
    filled = [(place, token) for (place, _), token in zip(wanted, done.tokens, strict=True)]
    await job.turns.next()
    collided = [place for place, token in filled if token is None]
    records.bad.extend(item_errors.collision(place.record, place.slot.path) for place in collided)
    errors = _settle(records.bad, lenient, limits)
    spoiled.update(place.record for place in collided)
    replaced = dict.fromkeys(fields.paths, 0)
    for place, token in filled:
        if token is not None and place.record not in spoiled:
            place.slot.replace(token)
            replaced[fields.paths[place.slot.field]] += 1
        if job.turns.over():
            await job.turns.next()
    counts.replaced = sum(replaced.values())
    return _Done(done.epoch, records.encode(spoiled), replaced, errors)


async def _judge_records(records: Records, limits: Limits, turns: Turns) -> list[bytes | None]:
    """Canonical forms, one for each place, None for what has none. All that is bad is added to ``records.bad``."""
    canonicals: list[bytes | None] = []
    for place in records.places:
        canonical = from_json(place.slot.raw)
        canonicals.append(canonical)
        if canonical is None:
            records.bad.append(item_errors.item_error(place.record, item_errors.not_tokenizable(place.slot.raw), place.slot.path))
        if turns.over():
            await turns.next()
    for start in range(0, len(canonicals), _JUDGED):
        for position, error in item_errors.unfit(canonicals[start : start + _JUDGED], limits):
            place = records.places[start + position]
            records.bad.append(item_errors.item_error(place.record, error, place.slot.path))
        if turns.over():
            await turns.next()
    return canonicals


def _settle(bad: Sequence[ItemError], lenient: bool, limits: Limits) -> list[ItemProblem] | UnsetType:
    """The list of bad items for a request that asked for one; otherwise one bad item is the request's failure."""
    if not lenient:
        item_errors.refuse_any(bad, limits)
        return UNSET
    return [ItemProblem(error.index, error.code, error.path) for error in item_errors.in_order(bad)]
