"""POST /tokenize: values, or the configured fields of records, become tokens.

All items are checked before the vault is asked. If ``on_error`` is "fail", one bad item means 422, and nothing is done. If it is
"item", a bad value, or a record with a bad field, becomes null in the answer, nothing of it is stored, and the other items go
through. Only a collision is found later, by the vault, when the other values are stored; with "fail" the answer is then 409, and
no token is returned.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import UNSET, Raw, UnsetType

from quorumvault.crypto.canonical import from_json
from quorumvault.server.http.answer import Part, splice, splice_list
from quorumvault.server.http.body import Turns, turn
from quorumvault.server.http.dependencies import AdmittedRequest, Content
from quorumvault.server.http.item_errors import (
    COLLISION,
    ItemErrors,
    ItemProblem,
    judge_texts,
    judge_values,
    not_tokenizable,
    unfit,
)
from quorumvault.server.http.memory import cost_of_paths, cost_of_writing
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

#: Canonical forms that are judged in one step, which takes some milliseconds if all of them are tokens.
_JUDGED = 512


async def tokenize(admitted: AdmittedRequest) -> Content:
    """Return the answer to a request for tokens. Raises RequestError."""
    request = await parse_tokenize(admitted.body, admitted.turns)
    await turn(len(admitted.body))
    errors = ItemErrors(admitted.services.limits, lenient=request.on_error == "item")
    if request.record is not UNSET:
        done = await _tokenize_records(admitted, [request.record], errors)
        return splice(encode(RecordTokenized(done.epoch, None, done.replaced, done.errors)), b"null", done.records)
    if request.records is not UNSET:
        done = await _tokenize_records(admitted, request.records, errors)
        return splice_list(encode(RecordsTokenized(done.epoch, [], done.replaced, done.errors)), done.records)
    return encode(await _tokenize_values(admitted, request, errors))


async def _tokenize_values(admitted: AdmittedRequest, request: TokenizeBody, errors: ItemErrors) -> ValuesTokenized:
    if isinstance(request, TextTokenizeBody):
        canonicals = judge_texts(request.values or [], errors)
    else:
        canonicals = judge_values(request.values or [], errors)
    await turn(len(admitted.body))
    wanted = [canonical for canonical in canonicals if canonical is not None]
    await admitted.pay(cost_of_writing(len(wanted)))
    async with admitted.turn(len(wanted)):
        done = await admitted.services.vault.tokenize(admitted.owner, wanted)
    admitted.counts.epoch = done.epoch
    tokens = done.tokens
    if len(wanted) < len(canonicals):
        fresh = iter(done.tokens)
        tokens = [None if canonical is None else next(fresh) for canonical in canonicals]
    if None in done.tokens:
        for index, (canonical, token) in enumerate(zip(canonicals, tokens, strict=True)):
            if canonical is not None and token is None:
                errors.add(index, COLLISION)
    errors.refuse_unless_lenient()
    return ValuesTokenized(done.epoch, tokens, errors.listed)


class _Done(NamedTuple):
    """The parts of an answer about records. The records are encoded one by one, as they leave."""

    epoch: int
    records: Iterator[Part]
    replaced: dict[str, int]
    errors: list[ItemProblem] | UnsetType


async def _tokenize_records(admitted: AdmittedRequest, raws: Sequence[Raw], errors: ItemErrors) -> _Done:
    fields, counts = admitted.services.fields, admitted.counts
    records = await read_records(admitted, raws, errors)
    canonicals = await _judge_records(records, errors, admitted.turns)
    await admitted.pay(cost_of_paths(len(errors.found)))
    spoiled = {error.index for error in errors.found}
    await admitted.turns.next()
    pairs = zip(records.places, canonicals, strict=True)
    wanted = [(place, canonical) for place, canonical in pairs if canonical is not None and place.record not in spoiled]
    await admitted.pay(cost_of_writing(len(wanted)))
    async with admitted.turn(len(wanted)):
        done = await admitted.services.vault.tokenize(admitted.owner, [canonical for _, canonical in wanted])
    counts.epoch = done.epoch
    filled = [(place, token) for (place, _), token in zip(wanted, done.tokens, strict=True)]
    await admitted.turns.next()
    for place, token in filled:
        if token is None:
            errors.add(place.record, COLLISION, place.slot.path)
            spoiled.add(place.record)
    errors.refuse_unless_lenient()
    replaced = dict.fromkeys(fields.paths, 0)
    for place, token in filled:
        if token is not None and place.record not in spoiled:
            place.slot.replace(token)
            replaced[fields.paths[place.slot.field]] += 1
        if admitted.turns.over():
            await admitted.turns.next()
    counts.replaced = sum(replaced.values())
    return _Done(done.epoch, records.encode(spoiled), replaced, errors.listed)


async def _judge_records(records: Records, errors: ItemErrors, turns: Turns) -> list[bytes | None]:
    """Return the canonical form at each place, None if it has none. Adds all that is bad to ``errors``, and refuses."""
    canonicals: list[bytes | None] = []
    for place in records.places:
        canonical = from_json(place.slot.raw)
        canonicals.append(canonical)
        if canonical is None:
            errors.add(place.record, not_tokenizable(place.slot.raw), place.slot.path)
        if turns.over():
            await turns.next()
    for start in range(0, len(canonicals), _JUDGED):
        for position, error in unfit(canonicals[start : start + _JUDGED], errors.limits):
            place = records.places[start + position]
            errors.add(place.record, error, place.slot.path)
        if turns.over():
            await turns.next()
    errors.refuse_unless_lenient()
    return canonicals
