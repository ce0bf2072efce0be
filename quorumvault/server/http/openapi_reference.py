"""The paths of the API as a table: types, permissions, errors, descriptions and examples of each.

openapi.py makes GET /openapi.json from it. The types and the error classes are the ones that requests use. Tests check that every
route is in the table, and that real answers match it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from quorumvault import errors
from quorumvault.config.api_keys import Permission
from quorumvault.config.cluster import Limits
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ItemError, RequestError
from quorumvault.server.http import schemas
from quorumvault.server.http.health import Health, PeerHealth, QuorumHealth

Answer = type[msgspec.Struct]


class Example(NamedTuple):
    """A successful request, None for a GET, and its answer."""

    name: str
    request: Any
    answer: Any


class ArrowForm(NamedTuple):
    """Descriptions of a request and of its answer as Arrow streams."""

    request: str
    answer: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``permission`` is the one that a key needs, "any" if every key may, None if no key is needed.

    ``answers`` are the forms of a success, of which an answer has one; ``unavailable`` is the body of a 503 that is no problem.
    ``own_errors`` are the errors beyond those of every request with a key or a body.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    description: str
    permission: Permission | Literal["any"] | None = None
    request: type[schemas.Body] | None = None
    answers: tuple[Answer, ...] = ()
    unavailable: Answer | None = None
    own_errors: tuple[type[RequestError], ...] = ()
    examples: Sequence[Example] = field(default=(), repr=False)
    media_type: str = "application/json"
    arrow: ArrowForm | None = None

    @property
    def errors(self) -> list[type[RequestError]]:
        """All errors that it may answer, in the order in which they are detected."""
        kinds: list[type[RequestError]] = []
        if self.permission is not None:
            kinds += [errors.Unauthenticated]
            kinds += [] if self.permission == "any" else [errors.NotPermitted]
            kinds += [errors.Busy, errors.RateLimited, errors.Draining]
        if self.request is not None:
            kinds += [errors.UnsupportedMediaType, errors.TooLarge, errors.Malformed]
        return [*kinds, errors.Invalid, *self.own_errors, errors.Internal]


def _token(epoch: int, value: str) -> str:
    """Return a well-formed token that nobody was given."""
    return format_token(epoch, hashlib.blake2b(value.encode(), digest_size=20).digest())


_TEXT = (
    "of text (utf8, large_utf8, or a dictionary of one of them; not compressed, little-endian, in up to "
    f"{Limits().arrow_batches:,} batches)"
)
_JUDGED = "Another type, or a buffer that is not what the schema says, rows that are null included, is malformed."
_EPOCH_METADATA = "The epoch is in the schema's metadata, `quorumvault.epoch`."
_SSN, _PHONE = "999-17-5017", "555-214-3375"
_RECORD = {"id": 17, "ssn": _SSN, "contacts": [{"phone": _PHONE}], "balance": 1.5}
_TOKENIZED = {"id": 17, "ssn": _token(1, _SSN), "contacts": [{"phone": _token(1, _PHONE)}], "balance": 1.5}
_STRANGER = _token(1, "never issued")
_REPLACED = {"$.ssn": 1, "$.name.family": 0, "$.contacts[*].phone": 1}

_PEER = PeerHealth("up", "active")
_HEALTHY = msgspec.to_builtins(Health("ok", "n1", "active", QuorumHealth(3), {"n2": _PEER, "n3": _PEER}, [], "1.0.0"))
#: What is wrong with values, or with their number.
_OF_VALUES = (errors.NotTokenizable, errors.AlreadyTokenized, errors.TooManyItems, errors.ValueTooLarge)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/tokenize",
        "Values become tokens",
        "Replaces values by tokens: the values at the configured fields of records (GET /fields), or a list of values. The same "
        "owner, epoch and value always make the same token. Strings, integers and booleans can be tokenized, and the type "
        "counts; null stays null. 200 means that every mapping in the answer is durable on at least two nodes; whatever else "
        "the answer is, the same request can be sent again, to any node, any number of times.",
        permission="tokenize",
        request=schemas.TokenizeBody,
        answers=(schemas.RecordTokenized, schemas.RecordsTokenized, schemas.ValuesTokenized),
        own_errors=(*_OF_VALUES, errors.TokenCollision, errors.NoQuorum),
        examples=(
            Example("record", {"record": _RECORD}, {"epoch": 1, "record": _TOKENIZED, "replaced": _REPLACED}),
            Example("records", {"records": [_RECORD]}, {"epoch": 1, "records": [_TOKENIZED], "replaced": _REPLACED}),
            Example("values", {"values": [_SSN, 42, None]}, {"epoch": 1, "tokens": [_token(1, _SSN), _token(1, "42"), None]}),
            Example(
                "on_error",
                {"values": [_SSN, _STRANGER], "on_error": "item"},
                {"epoch": 1, "tokens": [_token(1, _SSN), None], "errors": [{"index": 1, "code": "already-tokenized"}]},
            ),
        ),
        arrow=ArrowForm(
            f"One column {_TEXT}, `value`. {_JUDGED}", f"One column, `token`, in the order of the rows. {_EPOCH_METADATA}"
        ),
    ),
    Endpoint(
        "POST",
        "/detokenize",
        "Tokens become values",
        "Gives values back with their types: for one token, for a list, or in records, at the configured fields. Tokens of "
        'every epoch work together. "Not found" is said only when a quorum of nodes answered and none has it; it is the one '
        "answer for a token that was never issued, is another owner's, is malformed or of an unknown epoch.",
        permission="detokenize",
        request=schemas.DetokenizeBody,
        answers=(schemas.TokenDetokenized, schemas.TokensDetokenized, schemas.RecordsDetokenized),
        own_errors=(errors.TooManyItems, errors.NotFound, errors.TokenCollision, errors.NoQuorum),
        examples=(
            Example("token", {"token": _token(1, _SSN)}, {"token": _token(1, _SSN), "value": _SSN}),
            Example(
                "tokens",
                {"tokens": [_token(1, _SSN), None, _STRANGER]},
                {
                    "results": [{"status": "ok", "value": _SSN}, {"status": "null"}, {"status": "not_found"}],
                    "found": 1,
                    "not_found": 1,
                },
            ),
            Example(
                "records",
                {"records": [_TOKENIZED, {"ssn": _STRANGER}]},
                {
                    "records": [_RECORD, {"ssn": _STRANGER}],
                    "found": 2,
                    "not_found": 1,
                    "missing": [{"index": 1, "path": "$.ssn"}],
                },
            ),
        ),
        arrow=ArrowForm(
            f"One column {_TEXT}, `token`. {_JUDGED}",
            "Two columns in the order of the rows: `value`, and `status`, which is one of those of JSON, or `not_text` for a "
            "value that is no text.",
        ),
    ),
    Endpoint(
        "POST",
        "/retokenize",
        "Tokens move to the active epoch",
        "Gives for each token the one that its value has in the active epoch, without showing the value. A token that is there "
        "already comes back itself.",
        permission="tokenize",
        request=schemas.RetokenizeBody,
        answers=(schemas.TokensRetokenized,),
        own_errors=(errors.TooManyItems, errors.NoQuorum),
        examples=(
            Example(
                "tokens",
                {"tokens": [_token(1, _SSN), _STRANGER]},
                {"epoch": 2, "results": [{"status": "ok", "token": _token(2, _SSN)}, {"status": "not_found"}]},
            ),
        ),
        arrow=ArrowForm(
            f"One column {_TEXT}, `token`. {_JUDGED}",
            f"Two columns in the order of the rows: `token` and `status`. {_EPOCH_METADATA}",
        ),
    ),
    Endpoint(
        "POST",
        "/tokens",
        "The tokens of values in every epoch",
        "Gives for each value its tokens of every epoch from the first to the active one, to find it in data that was tokenized "
        "before a rotation and never moved. The tokens are derived, whether or not they were ever issued; nothing is stored, so "
        "a token that was never issued still has no value. Values that cannot be tokenized are refused as by /tokenize. Values "
        "times epochs have to be within the limit `items`, and count against the key's rate in values. It needs the permission "
        "`derive`, which no key has unless it was given: who may derive can find out which values tokens stand for, by trying "
        "all there are.",
        permission="derive",
        request=schemas.TokensBody,
        answers=(schemas.TokensDerived,),
        own_errors=(*_OF_VALUES, errors.NoQuorum),
        examples=(
            Example("values", {"values": [_SSN, None]}, {"epoch": 2, "tokens": [[_token(1, _SSN), _token(2, _SSN)], None]}),
        ),
    ),
    Endpoint(
        "POST",
        "/rotate-epoch",
        "The next epoch begins",
        "Begins the epoch after `from_epoch`. If that was done already, nothing changes: a repeat, on any node, is safe. Once "
        "it has been answered, every tokenize begun later, on any node, uses the new epoch or a later one; old tokens still "
        "resolve.",
        permission="rotate",
        request=schemas.RotateBody,
        answers=(schemas.ActiveEpoch,),
        own_errors=(errors.EpochAhead, errors.NoQuorum),
        examples=(Example("rotate", {"from_epoch": 1}, {"active_epoch": 2}),),
    ),
    Endpoint(
        "GET",
        "/epoch",
        "The active epoch",
        "The epoch of the key's owner, by quorum. It starts at 1.",
        permission="any",
        answers=(schemas.ActiveEpoch,),
        own_errors=(errors.NoQuorum,),
        examples=(Example("epoch", None, {"active_epoch": 1}),),
    ),
    Endpoint(
        "GET",
        "/fields",
        "The configured fields",
        "Which members of records are replaced by tokens.",
        permission="any",
        answers=(schemas.ConfiguredFields,),
        examples=(Example("fields", None, {"fields": list(_REPLACED)}),),
    ),
    Endpoint(
        "GET",
        "/health",
        "How this node is",
        "200 when this node can serve requests with a quorum, else 503, with the same body.",
        answers=(Health,),
        unavailable=Health,
        examples=(Example("healthy", None, _HEALTHY),),
    ),
    Endpoint(
        "GET",
        "/livez",
        "Whether the process runs",
        "That there is an answer at all is what it says.",
        answers=(schemas.Live,),
        examples=(Example("live", None, {"status": "ok"}),),
    ),
    Endpoint(
        "GET",
        "/readyz",
        "Whether to send requests here",
        "Like /health, and 503 while the node drains before it stops.",
        answers=(Health,),
        unavailable=Health,
        examples=(Example("ready", None, _HEALTHY),),
    ),
    Endpoint(
        "GET",
        "/limits",
        "What one request may have",
        "The limits in force in this node.",
        answers=(schemas.LimitsInForce,),
        examples=(Example("defaults", None, msgspec.to_builtins(schemas.LimitsInForce.of(Limits()))),),
    ),
    Endpoint(
        "GET",
        "/metrics",
        "Metrics for Prometheus",
        "Prometheus' text format. No owner, token or value is in any label.",
        media_type="text/plain",
        examples=(Example("metrics", None, "# TYPE quorumvault_quorum_reachable gauge\nquorumvault_quorum_reachable 3.0\n"),),
    ),
    Endpoint("GET", "/openapi.json", "This document", "OpenAPI 3.1 of the API."),
)

_BAD_ITEM = ItemError(3, "not-tokenizable", "an object or an array is no value; name a field inside it, or send text", "$.ssn")
#: One of each error, in the order of the statuses.
PROBLEMS: tuple[RequestError, ...] = (
    errors.Malformed("the body is not JSON"),
    errors.Unauthenticated("send a valid API key, and only one: Authorization: Bearer <key>, or X-API-Key: <key>"),
    errors.NotPermitted("key k7f3 may detokenize, not tokenize; `quorumvault keys create --allow` makes one that may"),
    errors.NotFound("no value of yours has this token"),
    errors.MethodNotAllowed("this path takes POST", allow="POST"),
    errors.EpochAhead(active_epoch=1),
    errors.TokenCollision("two values met in this token; which of them is meant cannot be told"),
    errors.TooLarge("a body has at most 16777216 bytes here (GET /limits); send the items in several requests"),
    errors.UnsupportedMediaType("send JSON and say so in one header, Content-Type: application/json"),
    errors.Invalid(
        'the body names 2 things to work on; send one of "token": "…", "tokens": ["…", null, …] and "records": [{…}, …]'
    ),
    errors.NotTokenizable(f"item 3: {_BAD_ITEM.detail}; nothing is returned", errors=(_BAD_ITEM,)),
    errors.AlreadyTokenized(
        "item 0: it already is a token, and a token is not tokenized again; nothing is returned",
        errors=(ItemError(0, "already-tokenized", "it already is a token, and a token is not tokenized again"),),
    ),
    errors.TooManyItems("a request has at most 10000 values here (GET /limits); send them in several requests"),
    errors.ValueTooLarge(
        "item 0: a value has at most 65536 bytes here (GET /limits); nothing is returned",
        errors=(ItemError(0, "value-too-large", "a value has at most 65536 bytes here (GET /limits)"),),
    ),
    errors.Busy("64 requests are under way here; wait, or send the request to another node"),
    errors.RateLimited("key k7f3 may ask about 1000 values a second; wait 9 s", retry_after=9),
    errors.Internal("a fault in this node; its log has the place, under this request_id"),
    errors.NoQuorum("fewer than 2 nodes could decide this (n2: down; n3: down)", outcome="none"),
    errors.Draining("this node is about to stop; send the request to another one", outcome="none"),
)
