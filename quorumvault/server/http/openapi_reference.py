"""The table of the API's paths, with the types, permission, errors, description and examples of each.

openapi.py makes GET /openapi.json from the table. The table names the same types and error classes that requests use. Tests check
that every route is in the table, and that real answers match it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from quorumvault import errors
from quorumvault.config.api_keys import Permission
from quorumvault.config.limits import Limits
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ItemError, RequestError
from quorumvault.server.http import schemas
from quorumvault.server.http.health import Health, PeerHealth, QuorumHealth

Answer = type[msgspec.Struct]


class Example(NamedTuple):
    """A successful request and its answer. ``request`` is None for a GET."""

    name: str
    request: Any
    answer: Any


class ArrowForm(NamedTuple):
    """Descriptions of a request and of its answer as Arrow streams."""

    request: str
    answer: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``permission`` is what the key must be allowed to do: "any" if any key will do, None if no key is needed.

    ``answers`` lists the possible types of a successful answer. ``unavailable`` is the type of a 503 body that is not a problem.
    ``own_errors`` lists the errors besides those that every request with a key or a body can have.
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
        """All errors that the endpoint can answer, in the order in which they are detected."""
        kinds: list[type[RequestError]] = []
        if self.permission is not None:
            kinds += [errors.Unauthenticated]
            kinds += [] if self.permission == "any" else [errors.NotPermitted]
            kinds += [errors.Busy, errors.RateLimited, errors.Draining]
        if self.request is not None:
            kinds += [errors.UnsupportedMediaType, errors.TooLarge, errors.Malformed]
        return [*kinds, errors.Invalid, *self.own_errors, errors.Internal]


def _token(epoch: int, value: str) -> str:
    """Return a well-formed token that was never issued."""
    return format_token(epoch, hashlib.blake2b(value.encode(), digest_size=20).digest())


_TEXT = (
    "of text (utf8, large_utf8, or a dictionary of either; uncompressed, little-endian, in at most "
    f"{Limits().arrow_batches:,} batches)"
)
_JUDGED = (
    "A column of another type is malformed. So is one with a buffer that does not match the schema, even if only in null rows."
)
_EPOCH_METADATA = "The epoch is in the schema's metadata, `quorumvault.epoch`."
_SSN, _PHONE = "999-17-5017", "555-214-3375"
_RECORD = {"id": 17, "ssn": _SSN, "contacts": [{"phone": _PHONE}], "balance": 1.5}
_TOKENIZED = {"id": 17, "ssn": _token(1, _SSN), "contacts": [{"phone": _token(1, _PHONE)}], "balance": 1.5}
_STRANGER = _token(1, "never issued")
_REPLACED = {"$.ssn": 1, "$.name.family": 0, "$.contacts[*].phone": 1}

_PEER = PeerHealth("up", "active")
_HEALTHY = msgspec.to_builtins(Health("ok", "n1", "active", QuorumHealth(3), {"n2": _PEER, "n3": _PEER}, [], "1.0.0"))
#: The errors of values, and of their number.
_OF_VALUES = (errors.NotTokenizable, errors.AlreadyTokenized, errors.TooManyItems, errors.ValueTooLarge)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/tokenize",
        "Replace values with tokens",
        "Replaces a list of values, or the values at the configured fields of records (GET /fields). The same owner, epoch and "
        'value always give the same token. Strings, integers and booleans can be tokenized. The type counts: "1" and 1 are '
        "different values. null stays null. 200 means that every mapping in the answer is durable on at least two nodes. After "
        "any other answer, the same request can be sent again, to any node, any number of times.",
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
            f"One column `value` {_TEXT}. {_JUDGED}", f"One column `token`, in the order of the rows. {_EPOCH_METADATA}"
        ),
    ),
    Endpoint(
        "POST",
        "/detokenize",
        "Replace tokens with values",
        "Returns the values, with their types, of one token, of a list of tokens, or of the tokens at the configured fields of "
        'records. One request can mix tokens of different epochs. "Not found" means that a quorum of nodes answered and none of '
        "them has the token. The answer is the same whether a token was never issued, belongs to another owner, is malformed, or "
        "has an unknown epoch.",
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
            f"One column `token` {_TEXT}. {_JUDGED}",
            "Two columns in the order of the rows, `value` and `status`. `status` is one of the statuses in JSON, or `not_text` "
            "for a value that is not text.",
        ),
    ),
    Endpoint(
        "POST",
        "/retokenize",
        "Move tokens to the active epoch",
        "Returns, for each token, the token of the same value in the active epoch, without showing the value. A token of the "
        "active epoch comes back unchanged.",
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
            f"One column `token` {_TEXT}. {_JUDGED}",
            f"Two columns in the order of the rows, `token` and `status`. {_EPOCH_METADATA}",
        ),
    ),
    Endpoint(
        "POST",
        "/tokens",
        "Derive the tokens of values in every epoch",
        "Returns the tokens of each value in every epoch, from the first to the active one. With them, the value can be found in "
        "data that was tokenized before a rotation and not moved since. The tokens are derived whether or not they were ever "
        "issued. Nothing is stored: a token that was never issued still has no value. Values that cannot be tokenized are "
        "refused as by /tokenize. The number of values times the number of epochs is limited by `items`, and counts against the "
        "key's rate in values. The key needs the permission `derive`, which has to be granted: whoever may derive can find out "
        "which values tokens stand for, by trying every possible value.",
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
        "Begin the next epoch",
        "The next epoch is the one after `from_epoch`. If it has begun already, nothing changes: it is safe to repeat the "
        "request, on any node. Once a rotation has been answered, every tokenize request that begins later, on any node, uses "
        "the new epoch or a later one. Old tokens still resolve.",
        permission="rotate",
        request=schemas.RotateBody,
        answers=(schemas.ActiveEpoch,),
        own_errors=(errors.EpochAhead, errors.NoQuorum),
        examples=(Example("rotate", {"from_epoch": 1}, {"active_epoch": 2}),),
    ),
    Endpoint(
        "GET",
        "/epoch",
        "The active epoch of the key's owner",
        "Read from a quorum of nodes. An owner starts with epoch 1.",
        permission="any",
        answers=(schemas.ActiveEpoch,),
        own_errors=(errors.NoQuorum,),
        examples=(Example("epoch", None, {"active_epoch": 1}),),
    ),
    Endpoint(
        "GET",
        "/fields",
        "The configured fields",
        "Lists the members of records that tokens replace.",
        permission="any",
        answers=(schemas.ConfiguredFields,),
        examples=(Example("fields", None, {"fields": list(_REPLACED)}),),
    ),
    Endpoint(
        "GET",
        "/health",
        "The health of this node",
        "200 if this node can serve requests with a quorum, 503 if not. The body has the same form in both cases.",
        answers=(Health,),
        unavailable=Health,
        examples=(Example("healthy", None, _HEALTHY),),
    ),
    Endpoint(
        "GET",
        "/livez",
        "Whether the process runs",
        "Any answer means that it does.",
        answers=(schemas.Live,),
        examples=(Example("live", None, {"status": "ok"}),),
    ),
    Endpoint(
        "GET",
        "/readyz",
        "Whether to send requests to this node",
        "Like /health, but also 503 while the node drains before it stops.",
        answers=(Health,),
        unavailable=Health,
        examples=(Example("ready", None, _HEALTHY),),
    ),
    Endpoint(
        "GET",
        "/limits",
        "The limits of requests",
        "Returns the limits in force on this node.",
        answers=(schemas.LimitsInForce,),
        examples=(Example("defaults", None, msgspec.to_builtins(schemas.LimitsInForce.of(Limits()))),),
    ),
    Endpoint(
        "GET",
        "/metrics",
        "Metrics for Prometheus",
        "In Prometheus' text format. No label contains an owner, a token or a value.",
        media_type="text/plain",
        examples=(Example("metrics", None, "# TYPE quorumvault_quorum_reachable gauge\nquorumvault_quorum_reachable 3.0\n"),),
    ),
    Endpoint("GET", "/openapi.json", "This document", "The API, described in OpenAPI 3.1."),
)

_BAD_ITEM = ItemError(3, "not-tokenizable", "an object or an array is no value; name a field inside it, or send text", "$.ssn")
#: One example of each error, in the order of the statuses.
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
