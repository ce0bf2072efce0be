"""The bodies of requests and answers, as types: what decodes into one of these has the form that the contract asks for.

A request names exactly one of several things; msgspec has no union for that, so its struct has all of them, unset but one.
Members that are to go out as they came in stay ``msgspec.Raw``, bytes that nobody has looked at: ``check_json_text`` has to.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from quorumvault.api.problems import ItemProblem
from quorumvault.crypto.canonical import JSONValue
from quorumvault.errors import Invalid, Malformed
from quorumvault.jsontext import check_json_text

OnError = Literal["fail", "item"]


class Silent(msgspec.Struct, frozen=True):
    """Holds values or tokens, and does not show them in a ``repr``."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Body(Silent, frozen=True, forbid_unknown_fields=True):
    """A request. ``takes`` is its form in words, for whoever sent another one."""

    takes: ClassVar[str]


class TokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize, with values that are all text: they are decoded as they are wanted."""

    takes = 'send one of "record": {…}, "records": [{…}, …] and "values": […], and if need be "on_error": "fail" or "item"'

    record: Raw | UnsetType = UNSET
    records: list[Raw] | UnsetType = UNSET
    values: list[str | None] | UnsetType = UNSET
    on_error: OnError = "fail"


class MixedTokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize, with values of any type: numbers have to be seen as they are spelled."""

    takes = TokenizeBody.takes

    record: Raw | UnsetType = UNSET
    records: list[Raw] | UnsetType = UNSET
    values: list[Raw] | UnsetType = UNSET
    on_error: OnError = "fail"


class DetokenizeBody(Body, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    takes = 'send one of "token": "…", "tokens": ["…", null, …] and "records": [{…}, …]'

    token: str | UnsetType = UNSET
    tokens: list[str | None] | UnsetType = UNSET
    records: list[Raw] | UnsetType = UNSET


class RotateBody(Body, frozen=True, forbid_unknown_fields=True):
    """POST /rotate-epoch."""

    takes = 'send "from_epoch": the epoch that is to be left, an integer, 1 or larger'

    from_epoch: Annotated[int, Meta(ge=1)]


class ValuesTokenized(Silent, frozen=True, omit_defaults=True):
    """``errors`` is there, perhaps empty, if the request asked for on_error "item"; so in the two below."""

    epoch: int
    tokens: list[str | None]
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordTokenized(Silent, frozen=True, omit_defaults=True):
    epoch: int
    record: Raw | None
    replaced: dict[str, int]
    errors: list[ItemProblem] | UnsetType = UNSET


class RecordsTokenized(Silent, frozen=True, omit_defaults=True):
    epoch: int
    records: list[Raw | None]
    replaced: dict[str, int]
    errors: list[ItemProblem] | UnsetType = UNSET


class TokenDetokenized(Silent, frozen=True):
    token: str
    value: JSONValue


class Found(Silent, frozen=True, gc=False, tag_field="status", tag="ok"):
    """One result of many, with its value. ``gc=False``: it cannot be part of a cycle, and there may be 10,000."""

    value: JSONValue


class NoValue(msgspec.Struct, frozen=True):
    """One result of many, without a value: not_found, unavailable, collision, or null for a null."""

    status: str


class TokensDetokenized(Silent, frozen=True):
    results: list[Found | NoValue]
    found: int
    not_found: int


class MissingField(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A token in a record that stays as it is. Without ``status`` it was not found; else it is unavailable, or a collision."""

    index: int
    path: str
    status: str | None = None


class RecordsDetokenized(Silent, frozen=True):
    records: list[Raw | None]
    found: int
    not_found: int
    missing: list[MissingField]


class Live(msgspec.Struct, frozen=True):
    """GET /livez: that there is an answer at all is what it says."""

    status: Literal["ok"] = "ok"


class ActiveEpoch(msgspec.Struct, frozen=True):
    active_epoch: int


class ConfiguredFields(msgspec.Struct, frozen=True):
    fields: list[str]


class LimitsInForce(msgspec.Struct, frozen=True):
    """``record_values`` bounds the configured values in all records of a request together."""

    items: int
    record_values: int
    body_bytes: int
    value_bytes: int
    in_flight: int


BodyT = TypeVar("BodyT", bound=Body)

encode = msgspec.json.Encoder().encode
_strings = msgspec.json.Decoder(TokenizeBody)
_mixed = msgspec.json.Decoder(MixedTokenizeBody)
_detokenize = msgspec.json.Decoder(DetokenizeBody)
_rotate = msgspec.json.Decoder(RotateBody)


def parse_tokenize(body: bytes) -> TokenizeBody | MixedTokenizeBody:
    """Raises Malformed, Invalid. First as text alone, which is what most requests hold, and the fastest to decode."""
    request: TokenizeBody | MixedTokenizeBody
    try:
        request = _strings.decode(body)
    except (ValueError, RecursionError):
        check_json_text(body)
        request = _decode(_mixed, body)
    if request.record is not UNSET or request.records is not UNSET:
        check_json_text(body)
    _require_one(request, request.record, request.records, request.values)
    return request


def parse_detokenize(body: bytes) -> DetokenizeBody:
    """Raises Malformed, Invalid."""
    request = _decode(_detokenize, body)
    if request.records is not UNSET:
        check_json_text(body)
    _require_one(request, request.token, request.tokens, request.records)
    return request


def parse_rotate(body: bytes) -> RotateBody:
    """Raises Malformed, Invalid."""
    return _decode(_rotate, body)


def _decode(decoder: msgspec.json.Decoder[BodyT], body: bytes) -> BodyT:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        check_json_text(body)  # msgspec stops at the first member that does not fit; that all of it is JSON comes first
        raise Invalid(f"{_wording(error)}; {decoder.type.takes}") from None
    except (ValueError, RecursionError):
        check_json_text(body)
        raise Malformed("the body is not JSON") from None


def _require_one(request: Body, *things: object) -> None:
    given = sum(thing is not UNSET for thing in things)
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
