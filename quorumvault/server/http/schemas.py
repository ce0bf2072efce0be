"""The bodies of requests and answers, as types: what decodes into one of these has the form that the contract asks for.

A request names exactly one of several things; msgspec has no union for that, so its struct has all of them, unset but one.
Members that are to go out as they came in stay ``msgspec.Raw``, bytes that nobody has looked at: ``check_steps`` has to.
GET /openapi.json is made of these types too: their docstrings and ``Meta`` are what its readers see.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from quorumvault.errors import Invalid, Malformed
from quorumvault.formats.json import check_names, check_steps
from quorumvault.model import FIRST_EPOCH, MAX_EPOCH
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.body import Turns
from quorumvault.server.http.item_errors import ItemProblem

OnError = Annotated[
    Literal["fail", "item"],
    Meta(description='"fail": one bad item, and nothing is done. "item": null in the place of each bad one, and a list of them.'),
]
Record = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
#: A value as it is spelled; whether it can be tokenized is judged item by item, so that all that cannot are listed.
Value = Annotated[Raw, Meta(extra_json_schema={"type": ["string", "integer", "boolean", "null"]})]
#: The digits of an integer of any length.
Digits = Annotated[Raw, Meta(extra_json_schema={"type": "integer"})]
#: JSON Schema calls 1.0 and 1e0 integers too. The contract means digits, and so do generated clients.
EpochToLeave = Annotated[
    Raw,
    Meta(
        description="The active epoch, in digits alone: 1.0 and 1e0 are refused. One that was left before changes nothing; of a "
        "later one, however large, the answer is 409.",
        extra_json_schema={"type": "integer", "minimum": FIRST_EPOCH},
    ),
]
Epoch = Annotated[int, Meta(ge=1, description="The owner's active epoch: that of every token in this answer.")]
Replaced = Annotated[
    dict[str, int], Meta(description="How many values each configured path had; zeros show a path that leads nowhere.")
]


class Silent(msgspec.Struct, frozen=True):
    """Holds values or tokens, and does not show them in a ``repr``."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Body(Silent, frozen=True, forbid_unknown_fields=True):
    """A request. ``takes`` is its form in words, for whoever sent another one; of ``one_of``, exactly one has to be there."""

    takes: ClassVar[str]
    one_of: ClassVar[tuple[str, ...]] = ()


class TokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """What to tokenize: one record, records, or values."""

    takes = 'send one of "record": {…}, "records": [{…}, …] and "values": […], and if need be "on_error": "fail" or "item"'
    one_of = ("record", "records", "values")

    record: Record | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET
    values: list[Value] | UnsetType = UNSET
    on_error: OnError = "fail"


class TextTokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """The same with values that are all text, as most are: they are decoded at once. Numbers have to be seen as spelled."""

    takes = TokenizeBody.takes
    one_of = TokenizeBody.one_of

    record: Record | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET
    values: list[str | None] | UnsetType = UNSET
    on_error: OnError = "fail"


class DetokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """What to look up: one token, tokens, or records with tokens at the configured fields."""

    takes = 'send one of "token": "…", "tokens": ["…", null, …] and "records": [{…}, …]'
    one_of = ("token", "tokens", "records")

    token: str | UnsetType = UNSET
    tokens: list[str | None] | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET


class RetokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """The tokens to move to the active epoch."""

    takes = 'send "tokens": ["…", null, …]'

    tokens: list[str | None]


class TokensBody(Body, frozen=True, forbid_unknown_fields=True):
    """The values whose tokens of every epoch are wanted."""

    takes = 'send "values": ["…", 42, null, …]'

    values: list[Value]


class RotateBody(Body, frozen=True, forbid_unknown_fields=True):
    """The epoch that is to be left."""

    takes = 'send "from_epoch": the epoch that is to be left, an integer, 1 or larger'

    from_epoch: EpochToLeave


class ValuesTokenized(Silent, frozen=True, omit_defaults=True):
    """Tokens in the order of the values. ``errors`` is there, perhaps empty, if ``on_error`` was "item"."""

    epoch: Epoch
    tokens: list[str | None]
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordTokenized(Silent, frozen=True, omit_defaults=True):
    """The record with tokens at the configured fields. ``errors`` is there, perhaps empty, if ``on_error`` was "item"."""

    epoch: Epoch
    record: Record | None
    replaced: Replaced
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordsTokenized(Silent, frozen=True, omit_defaults=True):
    """Records in their order. ``errors`` is there, perhaps empty, if ``on_error`` was "item"."""

    epoch: Epoch
    records: list[Record | None]
    replaced: Replaced
    errors: list[ItemProblem] | UnsetType = UNSET


class TokenDetokenized(Silent, frozen=True):
    """The value with its JSON type."""

    token: str
    value: str | bool | Digits


Status = Annotated[str, Meta(extra_json_schema={"enum": ["ok", *(missing.value for missing in Missing), "null"]})]
Untold = Annotated[str, Meta(extra_json_schema={"enum": [Missing.UNAVAILABLE.value, Missing.COLLISION.value]})]


class ValueResult(Silent, frozen=True, gc=False):
    """One result of many; ``value``, with its JSON type, only with status "ok".

    "not_found": a quorum answered and none has it. "unavailable": it could not be told, ask again. "collision": two values met
    in this token, and neither is given out. "null": nothing was asked.
    """

    # gc=False: it cannot be part of a cycle, and there may be 10,000.
    status: Status
    value: str | bool | Digits | UnsetType = UNSET


class TokensDetokenized(Silent, frozen=True):
    """Results in the order of the tokens; the counts are of occurrences."""

    results: list[ValueResult]
    found: int
    not_found: int


class MissingField(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A token in a record that stays as it is. Without ``status`` it was not found; else it is unavailable, or a collision."""

    index: int
    path: str
    status: Untold | None = None


class RecordsDetokenized(Silent, frozen=True):
    """Records in their order, with values where tokens were found."""

    records: list[Record | None]
    found: int
    not_found: int
    missing: list[MissingField]


class TokenResult(Silent, frozen=True, gc=False):
    """One result of many; ``token``, in the active epoch, only with status "ok". The other statuses: see ValueResult."""

    status: Status
    token: str | UnsetType = UNSET


class TokensRetokenized(Silent, frozen=True):
    """Results in the order of the tokens, all of one epoch."""

    epoch: Epoch
    results: list[TokenResult]


class TokensDerived(Silent, frozen=True):
    """For each value, in order, its tokens of epochs 1, 2 and so on, the active one last; null for a null."""

    epoch: Annotated[int, Meta(ge=1, description="The owner's active epoch: that of the last token of each value.")]
    tokens: list[list[str] | None]


class Live(msgspec.Struct, frozen=True):
    """That there is an answer at all is what it says."""

    status: Literal["ok"] = "ok"


class ActiveEpoch(msgspec.Struct, frozen=True):
    """The owner's active epoch, by quorum."""

    active_epoch: Annotated[int, Meta(ge=1)]


class ConfiguredFields(msgspec.Struct, frozen=True):
    """JSONPath expressions (RFC 9535): the members of records that are replaced."""

    fields: list[str]


class LimitsInForce(msgspec.Struct, frozen=True):
    """What this node takes, and gives.

    ``record_values`` bounds the configured values in all records of a request together, ``answer_bytes`` one answer as it is
    encoded. ``in_flight`` requests at once share ``memory_bytes``.
    """

    items: int
    record_values: int
    body_bytes: int
    value_bytes: int
    in_flight: int
    answer_bytes: int
    memory_bytes: int


BodyT = TypeVar("BodyT", bound=Body)

encode = msgspec.json.Encoder().encode
_tokenize_text = msgspec.json.Decoder(TextTokenizeBody)
_tokenize = msgspec.json.Decoder(TokenizeBody)
_detokenize = msgspec.json.Decoder(DetokenizeBody)
_retokenize = msgspec.json.Decoder(RetokenizeBody)
_tokens = msgspec.json.Decoder(TokensBody)
_rotate = msgspec.json.Decoder(RotateBody)
_FROM_ONE = re.compile(rb"[1-9][0-9]*")
#: Of more digits Python would not always make a number.
_EPOCH_DIGITS = len(str(MAX_EPOCH))


async def parse_tokenize(body: bytes, turns: Turns) -> TokenizeBody | TextTokenizeBody:
    """Raises Malformed, Invalid. First as text alone, which is what most requests hold, and the fastest to decode."""
    request: TokenizeBody | TextTokenizeBody
    try:
        request = _tokenize_text.decode(body)
    except (ValueError, RecursionError):
        await turns.through(check_steps(body))
        request = await _decode(_tokenize, body, turns)
    else:
        await _check_decoded(body, turns, has_raws=request.record is not UNSET or request.records is not UNSET)
    _require_one(request)
    return request


async def parse_detokenize(body: bytes, turns: Turns) -> DetokenizeBody:
    """Raises Malformed, Invalid."""
    request = await _decode(_detokenize, body, turns)
    await _check_decoded(body, turns, has_raws=request.records is not UNSET)
    _require_one(request)
    return request


async def parse_retokenize(body: bytes, turns: Turns) -> RetokenizeBody:
    """Raises Malformed, Invalid."""
    request = await _decode(_retokenize, body, turns)
    await _check_decoded(body, turns, has_raws=False)
    return request


async def parse_tokens(body: bytes, turns: Turns) -> TokensBody:
    """Raises Malformed, Invalid."""
    request = await _decode(_tokens, body, turns)
    await _check_decoded(body, turns, has_raws=True)
    return request


async def parse_rotate(body: bytes, turns: Turns) -> int:
    """The epoch to leave; MAX_EPOCH + 1, or a larger one, for any that no epoch can be. Raises Malformed, Invalid."""
    request = await _decode(_rotate, body, turns)
    await _check_decoded(body, turns, has_raws=True)
    text = bytes(request.from_epoch)
    if not _FROM_ONE.fullmatch(text):
        raise Invalid(f"expected int >= {FIRST_EPOCH} at $.from_epoch; {RotateBody.takes}")
    return MAX_EPOCH + 1 if len(text) > _EPOCH_DIGITS else int(text)


async def _decode(decoder: msgspec.json.Decoder[BodyT], body: bytes, turns: Turns) -> BodyT:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # msgspec stops at the first member that does not fit; that all of it is JSON comes first.
        await turns.through(check_steps(body))
        raise Invalid(f"{_wording(error)}; {decoder.type.takes}") from None
    except (ValueError, RecursionError):
        await turns.through(check_steps(body))
        raise Malformed("the body is not JSON") from None


async def _check_decoded(body: bytes, turns: Turns, *, has_raws: bool) -> None:
    """What the decoder let pass: all of what it kept as it came, and names that are there twice. Raises Malformed.

    Without a second colon there is only one name.
    """
    if has_raws:
        await turns.through(check_steps(body))
    elif body.count(b":") > 1:
        await turns.through(check_names(body))


def _require_one(request: Body) -> None:
    given = sum(getattr(request, name) is not UNSET for name in request.one_of)
    if given != 1:
        raise Invalid(f"the body names {given} things to work on; {request.takes}")


#: What msgspec says of types and of places is made of this module's names and of positions. A name that it does not know,
#: or a word that it does not take, is the caller's text and might be a value: that much of a message is not passed on.
_PLACE = re.compile(r" - at `(\$[a-z_.\[\]0-9]*)`\Z")
_TYPES = re.compile(r"Expected `[a-z |]+`(?:, got `[a-z]+`| >= [0-9]+)")
_MISSING = re.compile(r"Object missing required field `[a-z_]+`")


def _wording(error: msgspec.ValidationError) -> str:
    text = str(error)
    place = _PLACE.search(text)
    where = f" at {place[1]}" if place else ""
    said = _TYPES.match(text) or _MISSING.match(text)
    if said:
        return said[0].replace("`", "").replace("Object missing", "missing").replace("Expected", "expected") + where
    if text.startswith("Object contains unknown field"):
        return "the body has a name in it that is not known here" + where
    return "something is there that is not taken" + where
