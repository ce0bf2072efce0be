"""What every request with an API key goes through, in the contract's order, and its one line in the event log.

    404/405  the router
    401      authenticate: whose key
    403      permit: may it do this
    503      draining        \\
    429      busy             }  admission, before a byte of the body is read
    429      rate-limited    /
    415      the body's media type
    413      its length, as announced and as it arrives
    400      JSON, or Arrow  \\
    422      labels, form     }  the operation, with the bytes
    409/503  the vault       /
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from quorumvault.api.auth import authenticate, permit
from quorumvault.api.intake import Form, declared_length, form_of, read_body, require_length
from quorumvault.api.labels import Labels, labels_of, require_well_formed
from quorumvault.api.rates import Rates
from quorumvault.api.services import Services
from quorumvault.config import Limits
from quorumvault.errors import RequestError
from quorumvault.events import Event
from quorumvault.jsontext import check_json_text
from quorumvault.keyfile import ApiKey, Permission
from quorumvault.model import Owner


@dataclass(slots=True)
class Counts:
    """What an operation tells the event log about itself, as far as it got. ``items``: values asked about, nulls left out."""

    epoch: int | None = None
    items: int | None = None
    found: int | None = None
    not_found: int | None = None
    replaced: int | None = None


Answer: TypeAlias = Callable[[Services, Owner, bytes, Counts], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Operation:
    """``event`` is its name in the log; ``permission`` None is any key. ``answer`` gets the owner and the body (empty for a
    GET), and gives the JSON of a success; it raises RequestError for the rest. ``arrow`` is the same for streams of Arrow."""

    event: str
    permission: Permission | None
    writes: bool
    answer: Answer
    arrow: Answer | None = None


class Guard:
    """An operation as an endpoint."""

    def __init__(self, services: Services, rates: Rates, operation: Operation) -> None:
        self._services = services
        self._rates = rates
        self._operation = operation

    async def endpoint(self, request: Request) -> Response:
        started = self._services.clock()
        labels, counts = labels_of(request.scope), Counts()
        key: ApiKey | None = None
        outcome = "internal"
        try:
            key = authenticate(request.headers, self._services.keys())
            response = await self._answer(request, labels, key, counts)
            outcome = "ok"
        except RequestError as error:
            outcome = error.code
            raise
        except ClientDisconnect:
            outcome = "disconnected"
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            await self._services.events.write(self._event(labels, key, counts, outcome, started))
        return response

    async def _answer(self, request: Request, labels: Labels, key: ApiKey, counts: Counts) -> Response:
        operation, services = self._operation, self._services
        if operation.permission is not None:
            permit(key, operation.permission)
        length = declared_length(request.headers)
        # What is beyond the limit will not be read, so no room is asked for it.
        room = length if length <= services.limits.body_bytes else 0
        with services.admission.enter(key.id, room, "none" if operation.writes else None) as place:
            self._rates.spend(key)
            body, answer, form = b"", operation.answer, Form.JSON
            if request.method == "POST":
                form = form_of(request.headers, takes_arrow=operation.arrow is not None)
                require_length(length, services.limits.body_bytes)
                body = await read_body(request, place, services.limits.body_bytes, services.timeouts.body)
            if operation.arrow is not None and form is Form.ARROW:
                answer = operation.arrow
            if labels.malformed and request.method == "POST":
                _check(form, body, services.limits)  # which comes first
            require_well_formed(labels)
            content = await answer(services, key.owner, body, counts)
            return Response(content, headers={"Cache-Control": "no-store"}, media_type=form.value)

    def _event(self, labels: Labels, key: ApiKey | None, counts: Counts, outcome: str, started: float) -> Event:
        return Event(
            event=self._operation.event,
            request_id=labels.request_id,
            owner=key.owner.name if key else None,
            key_id=key.id if key else None,
            purpose=labels.purpose,
            epoch=counts.epoch,
            items=counts.items,
            found=counts.found,
            not_found=counts.not_found,
            replaced=counts.replaced,
            outcome=outcome,
            duration_ms=round((self._services.clock() - started) * 1000, 3),
        )


def _check(form: Form, body: bytes, limits: Limits) -> None:
    """Raises Malformed for a body that is not in the form it is said to be in."""
    if form is Form.ARROW:
        from quorumvault.api.arrowstream import read_stream  # loads pyarrow

        read_stream(body, limits)
    else:
        check_json_text(body)
