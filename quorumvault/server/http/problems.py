"""Errors as problem details (RFC 9457): one shape for everything that is not a success.

Each error's status and code are attributes of its class in quorumvault/errors.py. No value, API key or whole token can appear in
a problem: details are texts of this program, and none quotes a request.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from quorumvault.errors import EpochAhead, Internal, MethodNotAllowed, NotFound, RequestError, Unauthenticated, WriteOutcome
from quorumvault.server.http.item_errors import ItemProblem
from quorumvault.server.http.request_ids import id_headers_of

MEDIA_TYPE = "application/problem+json"

Code = Annotated[str, Meta(extra_json_schema={"enum": sorted({kind.code for kind in RequestError.__subclasses__()})})]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457). ``code`` is for programs, ``detail`` for people. A problem never contains a value.

    ``outcome`` comes with 503 for writes: "none", or "unknown" if some node may have stored something, which a repeat makes good.
    ``active_epoch`` comes with epoch-ahead (409). ``errors`` lists the bad items, up to 100.
    """

    type: str
    title: str
    status: int
    detail: str
    code: Code
    request_id: str
    retryable: Annotated[bool, Meta(description="Whether sending the same request again, later or to another node, can help.")]
    outcome: WriteOutcome | None = None
    active_epoch: int | None = None
    errors: list[ItemProblem] = []


def problem_of(error: RequestError, request_id: str) -> Problem:
    return Problem(
        type=f"urn:quorumvault:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        retryable=error.retryable,
        outcome=error.outcome,
        active_epoch=error.active_epoch if isinstance(error, EpochAhead) else None,
        errors=[ItemProblem(item.index, item.code, item.path, item.detail) for item in error.errors],
    )


def problem_response(error: RequestError, request_id: str) -> Response:
    return Response(msgspec.json.encode(problem_of(error, request_id)), error.status, _headers(error), MEDIA_TYPE)


def _headers(error: RequestError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    return headers


async def answer_routing_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for the errors of its router: no such path (404), or not with this method (405)."""
    assert isinstance(error, HTTPException)
    request_id = id_headers_of(request.scope).request_id
    if error.status_code == NotFound.status:
        return problem_response(NotFound("this path is not served here; a trailing slash makes it another path"), request_id)
    if error.status_code == MethodNotAllowed.status:
        allow = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        return problem_response(MethodNotAllowed(f"this path takes {allow}", allow=allow), request_id)
    return problem_response(Internal(f"the routing of requests failed with {error.status_code}"), request_id)
