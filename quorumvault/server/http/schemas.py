"""The types of request and answer bodies. A body that decodes into one of these types has the form that the contract requires.

Some requests have exactly one of several members. msgspec has no union for that, so the struct has all of these members, and all
but one are unset. Members that are returned as they arrived stay ``msgspec.Raw``. The decoder does not look into them;
``check_steps`` does. GET /openapi.json is generated from these types too, with their docstrings and ``Meta``.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from quorumvault.config.limits import Limits
from quorumvault.errors import Invalid, Malformed
from quorumvault.formats.json import check_names, check_steps
from quorumvault.model import FIRST_EPOCH, MAX_EPOCH
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.body import Turns
from quorumvault.server.http.item_errors import ItemProblem

OnError = Annotated[
    Literal["fail", "item"],
    Meta(description='"fail": if one item is bad, nothing is done. "item": each bad item becomes null, and ``errors`` lists it.'),
]
Record = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
#: A value as it is spelled. item_errors.py checks each value, so that the answer lists all bad ones.
Value = Annotated[Raw, Meta(extra_json_schema={"type": ["string", "integer", "boolean", "null"]})]
#: The digits of an integer of any length.
Digits = Annotated[Raw, Meta(extra_json_schema={"type": "integer"})]
#: JSON Schema counts 1.0 and 1e0 as integers too. The contract means digits, and so do generated clients.
EpochToLeave = Annotated[
    Raw,
    Meta(
        description="The active epoch, in digits alone: 1.0 and 1e0 are refused. An epoch before the active one changes nothing. "
        "An epoch after the active one, however large, is answered with 409.",
        extra_json_schema={"type": "integer", "minimum": FIRST_EPOCH},
    ),
]
Epoch = Annotated[int, Meta(ge=1, description="The owner's active epoch, to which every token in this answer belongs.")]
Replaced = Annotated[
    dict[str, int], Meta(description="The number of values at each configured path. 0 shows a path that matched nothing.")
]


class Silent(msgspec.Struct, frozen=True):
    """Holds values or tokens, which its ``repr`` does not show."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Body(Silent, frozen=True, forbid_unknown_fields=True):
    """A request. ``takes`` describes its form in words, for the error about a request of another form. Exactly one of the members
    in ``one_of`` must be present. ``kept_raw`` names the members that the decoder keeps as they came."""

    takes: ClassVar[str]
    one_of: ClassVar[tuple[str, ...]] = ()
    kept_raw: ClassVar[tuple[str, ...]] = ()


class TokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """What to tokenize: one record, a list of records, or a list of values."""

    takes = 'send one of "record": {…}, "records": [{…}, …] and "values": […], and if need be "on_error": "fail" or "item"'
    one_of = ("record", "records", "values")
    kept_raw: ClassVar[tuple[str, ...]] = ("record", "records", "values")

    record: Record | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET
    values: list[Value] | UnsetType = UNSET
    on_error: OnError = "fail"


class TextTokenizeBody(TokenizeBody, frozen=True, forbid_unknown_fields=True):
    """A request whose values are all strings or null, as most are: they are decoded at once. Numbers have to stay as spelled."""

    kept_raw: ClassVar[tuple[str, ...]] = ("record", "records")

    values: list[str | None] | UnsetType = UNSET  # type: ignore[assignment]


class DetokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """What to look up: one token, a list of tokens, or a list of records with tokens at the configured fields."""

    takes = 'send one of "token": "…", "tokens": ["…", null, …] and "records": [{…}, …]'
    one_of = ("token", "tokens", "records")
    kept_raw = ("records",)

    token: str | UnsetType = UNSET
    tokens: list[str | None] | UnsetType = UNSET
    records: list[Record] | UnsetType = UNSET


class RetokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """The tokens to move to the active epoch."""

    takes = 'send "tokens": ["…", null, …]'

    tokens: list[str | None]


class TokensBody(Body, frozen=True, forbid_unknown_fields=True):
    """The values to derive tokens for, in every epoch."""

    takes = 'send "values": ["…", 42, null, …]'
    kept_raw = ("values",)

    values: list[Value]


class RotateBody(Body, frozen=True, forbid_unknown_fields=True):
    """The epoch to leave."""

    takes = 'send "from_epoch": the epoch that is to be left, an integer, 1 or larger'
    kept_raw = ("from_epoch",)

    from_epoch: EpochToLeave


class ValuesTokenized(Silent, frozen=True, omit_defaults=True):
    """Tokens in the order of the values. ``errors`` is present, and may be empty, if ``on_error`` was "item"."""

    epoch: Epoch
    tokens: list[str | None]
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordTokenized(Silent, frozen=True, omit_defaults=True):
    """The record with tokens at the configured fields. ``errors`` is present, and may be empty, if ``on_error`` was "item"."""

    epoch: Epoch
    record: Record | None
    replaced: Replaced
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordsTokenized(Silent, frozen=True, omit_defaults=True):
    """The records with tokens at the configured fields, in the order of the request.

    ``errors`` is present, and may be empty, if ``on_error`` was "item".
    """

    epoch: Epoch
    records: list[Record | None]
    replaced: Replaced
    errors: list[ItemProblem] | UnsetType = UNSET


class TokenDetokenized(Silent, frozen=True):
    """The token and its value, which has its JSON type."""

    token: str
    value: str | bool | Digits


Status = Annotated[str, Meta(extra_json_schema={"enum": ["ok", *(missing.value for missing in Missing), "null"]})]
Untold = Annotated[str, Meta(extra_json_schema={"enum": [Missing.UNAVAILABLE.value, Missing.COLLISION.value]})]


class ValueResult(Silent, frozen=True, gc=False):
    """The result for one token of a list. ``value``, with its JSON type, is present only if ``status`` is "ok".

    "not_found": a quorum of nodes answered, and none of them has the token. "unavailable": the nodes could not tell; ask again.
    "collision": two values met in this token, and neither is returned. "null": the request had null in this place.
    """

    # gc=False: it cannot be part of a cycle, and there may be 10,000.
    status: Status
    value: str | bool | Digits | UnsetType = UNSET


class TokensDetokenized(Silent, frozen=True):
    """Results in the order of the tokens. A token that occurs twice counts twice."""

    results: list[ValueResult]
    found: int
    not_found: int


class MissingField(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A token that stays as it is in a record. Without ``status`` it was not found; else ``status`` says why it has no value."""

    index: int
    path: str
    status: Untold | None = None


class RecordsDetokenized(Silent, frozen=True):
    """The records in the order of the request, with values in place of the tokens that were found."""

    records: list[Record | None]
    found: int
    not_found: int
    missing: list[MissingField]


class TokenResult(Silent, frozen=True, gc=False):
    """The result for one token of a list. ``token``, of the active epoch, is present only if ``status`` is "ok".

    ValueResult explains the other statuses.
    """

    status: Status
    token: str | UnsetType = UNSET


class TokensRetokenized(Silent, frozen=True):
    """Results in the order of the tokens. All new tokens belong to one epoch."""

    epoch: Epoch
    results: list[TokenResult]


class TokensDerived(Silent, frozen=True):
    """For each value, in order: its tokens of epoch 1, 2 and so on up to the active epoch, or null for a null."""

    epoch: Annotated[int, Meta(ge=1, description="The owner's active epoch, to which the last token of each value belongs.")]
    tokens: list[list[str] | None]


class Live(msgspec.Struct, frozen=True):
    """Any answer means that the process runs."""

    status: Literal["ok"] = "ok"


class ActiveEpoch(msgspec.Struct, frozen=True):
    """The owner's active epoch, confirmed by a quorum of nodes."""

    active_epoch: Annotated[int, Meta(ge=1)]


class ConfiguredFields(msgspec.Struct, frozen=True):
    """JSONPath expressions (RFC 9535) for the members of records that tokens replace."""

    fields: list[str]


class LimitsInForce(msgspec.Struct, frozen=True):
    """The limits of this node on requests and answers.

    ``record_values`` limits the configured values in all records of one request together. ``answer_bytes`` limits one answer as
    encoded. Up to ``in_flight`` requests at a time share ``memory_bytes``.
    """

    items: int
    record_values: int
    body_bytes: int
    value_bytes: int
    in_flight: int
    answer_bytes: int
    memory_bytes: int

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """Return the part of a node's limits that callers are told."""
        return msgspec.convert(limits, cls, from_attributes=True)


BodyT = TypeVar("BodyT", bound=Body)

encode = msgspec.json.Encoder().encode
_decoders: dict[type[Body], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (TextTokenizeBody, TokenizeBody, DetokenizeBody, RetokenizeBody, TokensBody, RotateBody)
}
_FROM_ONE = re.compile(rb"[1-9][0-9]*")
#: Digits of the largest epoch. Python would not always convert more of them.
_EPOCH_DIGITS = len(str(MAX_EPOCH))


async def parse(kind: type[BodyT], body: bytes, turns: Turns) -> BodyT:
    """Return the body decoded as a struct of this kind. Raises Malformed, Invalid."""
    request: BodyT = await _decode(kind, body, turns)
    await _check_decoded(request, body, turns)
    return request


async def parse_tokenize(body: bytes, turns: Turns) -> TokenizeBody:
    """Return the body with its values as strings if all of them are: the most frequent case, and the fastest to decode.

    Raises Malformed, Invalid.
    """
    try:
        request: TextTokenizeBody = _decoders[TextTokenizeBody].decode(body)
    except (ValueError, RecursionError):
        await turns.through(check_steps(body))
        whole: TokenizeBody = await _decode(TokenizeBody, body, turns)
        _require_one(whole)
        return whole
    await _check_decoded(request, body, turns)
    return request


async def parse_rotate(body: bytes, turns: Turns) -> int:
    """Return the epoch to leave; MAX_EPOCH + 1 or more for a number that no epoch can be. Raises Malformed, Invalid."""
    text = bytes((await parse(RotateBody, body, turns)).from_epoch)
    if not _FROM_ONE.fullmatch(text):
        raise Invalid(f"expected int >= {FIRST_EPOCH} at $.from_epoch; {RotateBody.takes}")
    return MAX_EPOCH + 1 if len(text) > _EPOCH_DIGITS else int(text)


async def _decode(kind: type[BodyT], body: bytes, turns: Turns) -> BodyT:
    try:
        request: BodyT = _decoders[kind].decode(body)
    except msgspec.ValidationError as error:
        # msgspec stops at the first member that does not fit. A body that is not JSON is Malformed all the same.
        await turns.through(check_steps(body))
        raise Invalid(f"{_wording(error)}; {kind.takes}") from None
    except (ValueError, RecursionError):
        await turns.through(check_steps(body))
        raise Malformed("the body is not JSON") from None
    return request


async def _check_decoded(request: Body, body: bytes, turns: Turns) -> None:
    """Check the members that the decoder kept as they came, and look for repeated names. Raises Malformed, Invalid."""
    if any(getattr(request, name) is not UNSET for name in request.kept_raw):
        await turns.through(check_steps(body))
    elif body.count(b":") > 1:  # with one colon there is only one name
        await turns.through(check_names(body))
    _require_one(request)


def _require_one(request: Body) -> None:
    given = sum(getattr(request, name) is not UNSET for name in request.one_of)
    if request.one_of and given != 1:
        raise Invalid(f"the body names {given} things to work on; {request.takes}")


#: The parts of msgspec's messages that consist of this module's names and of positions. Other parts are the caller's text, such
#: as an unknown name. They might be a value, so they are not passed on.
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
