"""The steps of every request with an API key, in order, and the one call that records how it ended.

404/405  the router
401      authenticate: whose key is it?
403      permit: may the key do this?
503      the event log cannot be written and events.on_failure is "refuse" (no-quorum, outcome none)
503      draining      admission.py, before a byte of the body is read
429      busy          admission.py: no place; memory.py: no memory for the body (413: never)
429      rate-limited  rate_limits.py: spend_request, requests a second
415      the body's media type
413      its length, as announced and as it arrives
413/429  memory.py: the memory for the decoded body
401      the key again, once the body has arrived: meanwhile the key may have been revoked, or have expired
400      JSON, or Arrow            the operation, with the bytes
422      id headers, form, values  the operation
413/429  memory.py: the memory for the operation's work (AdmittedRequest.pay)
429/422  rate_limits.py: spend_values, values a second and a day (AdmittedRequest.charge)
401/503  the key once more, and whether this node knows which keys are revoked by now (no-quorum, outcome none)
409/503  the vault; 413 if the values fit into no answer; 429 if there is no memory for them, or large reads wait for others

Rules kept here: no key without knowledge.
"""

import asyncio
from dataclasses import dataclass
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from quorumvault.config.api_keys import ApiKey, Permission
from quorumvault.errors import NoQuorum, RequestError, WriteOutcome
from quorumvault.formats.json import check_steps, parts_in_steps
from quorumvault.server.http.answer import AnswerResponse
from quorumvault.server.http.arrow import check
from quorumvault.server.http.auth import authenticate, permit, require_in_force
from quorumvault.server.http.body import Form, Turns, declared_length, form_of, read_body, require_length
from quorumvault.server.http.dependencies import AdmittedRequest, Answer, Content, Counts, Services
from quorumvault.server.http.memory import cost_of_decoding
from quorumvault.server.http.rate_limits import Allowances
from quorumvault.server.http.request_ids import IdHeaders, id_headers_of, require_well_formed
from quorumvault.server.http.scope import Connection, connection_of, headers_of
from quorumvault.server.telemetry.event_log import Event

#: Each of these bytes may begin a value, unless it is in a string. Up to ``_FEW_PARTS`` of them are paid for without a check.
_PARTS = (b",", b"{", b"[")
_FEW_PARTS = 65_536


@dataclass(frozen=True, slots=True)
class Operation:
    """``event`` is its name in the log; ``permission`` None: any key may. ``answer`` is for JSON, ``arrow`` for Arrow streams."""

    event: str
    permission: Permission | None
    writes: bool
    answer: Answer
    arrow: Answer | None = None


class Pipeline:
    """An operation as an ASGI application. Raises RequestError and ClientDisconnect, before anything is sent."""

    def __init__(self, services: Services, allowances: Allowances, operation: Operation) -> None:
        self._services = services
        self._allowances = allowances
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._recorded(scope, receive)
        await response(scope, receive, send)

    async def _recorded(self, scope: Scope, receive: Receive) -> AnswerResponse:
        started = self._services.clock()
        ids, counts = id_headers_of(scope), Counts()
        key: ApiKey | None = None
        response: AnswerResponse | None = None
        outcome = "internal"
        try:
            key = authenticate(headers_of(scope), self._services.keys(), self._services.wall())
            response = await self._answer(scope, receive, key, counts)
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
            await self._record(self._event(ids, key, counts, outcome, started), response)
        return response

    async def _record(self, event: Event, response: AnswerResponse | None) -> None:
        """Record a finished request. Raises NoQuorum in place of a success that must not be answered without its line."""
        may_leave = False
        try:
            written = await self._services.events.write(event)
            may_leave = written or self._operation.permission is None  # an answer that any key may have discloses no value
        finally:
            if response is not None and not may_leave:
                response.give_up()
        if response is not None and not may_leave:
            raise self._not_recorded("unknown")

    def _not_recorded(self, outcome: WriteOutcome) -> NoQuorum:
        detail = "this node cannot write its event log, and serves nothing without a record (events.on_failure); ask another one"
        return NoQuorum(detail, outcome=outcome if self._operation.writes else None)

    def _require_knowledge(self) -> None:
        """Raises NoQuorum on a node that cannot tell whether a key was revoked (rule: no key without knowledge)."""
        if not self._services.knows_revoked():
            detail = (
                "this node does not reach two of the three nodes, so it cannot tell which API keys are revoked and takes none: "
                "see that two nodes run and reach each other, or ask another one"
            )
            raise NoQuorum(detail, outcome="none" if self._operation.writes else None)

    def _require_key(self, key: ApiKey) -> None:
        """Raises Unauthenticated or NoQuorum if the key, accepted a while ago, would not be accepted now."""
        require_in_force(key, self._services.keys(), self._services.wall())
        self._require_knowledge()

    async def _answer(self, scope: Scope, receive: Receive, key: ApiKey, counts: Counts) -> AnswerResponse:
        operation, services, headers = self._operation, self._services, headers_of(scope)
        if operation.permission is not None:
            permit(key, operation.permission)
            if services.events.refuses is not None:
                raise self._not_recorded("none")
        length = declared_length(headers)
        # A body beyond the limit is not read, so it needs no memory.
        room = length if length <= services.limits.body_bytes else 0
        place = services.admission.enter(key.owner, room, "none" if operation.writes else None)
        try:
            self._allowances.spend_request(key)
            form, body = Form.JSON, b""
            if scope["method"] == "POST":
                form = form_of(headers, takes_arrow=operation.arrow is not None)
                require_length(length, services.limits.body_bytes)
                connection = connection_of(scope)
                seconds = None if connection is not None and connection.received else services.timeouts.body
                body = await read_body(receive, place.memory, services.limits.body_bytes, seconds)
                require_in_force(key, services.keys(), services.wall())
            if not services.knows_revoked():  # a node whose links are just back answers a moment later, instead of refusing
                await services.learn_revoked()
            spend, require_key = partial(self._allowances.spend_values, key), partial(self._require_key, key)
            turns = Turns(services.clock)
            gone = partial(_has_left, connection_of(scope))
            admitted = AdmittedRequest(services, key.owner, body, counts, place.memory, turns, spend, require_key, gone)
            content = await self._carry_out(admitted, form, scope)
            place.memory.leave_lane()
            return AnswerResponse(content, form.value, place.close)
        except BaseException:
            place.close()
            raise

    async def _carry_out(self, admitted: AdmittedRequest, form: Form, scope: Scope) -> Content:
        operation, ids = self._operation, id_headers_of(scope)
        if form is Form.ARROW and operation.arrow is not None:
            if ids.malformed:
                await check(admitted)  # 400 comes before 422
            require_well_formed(ids)
            return await operation.arrow(admitted)
        if scope["method"] == "POST":
            await _pay_for_decoding(admitted)
            admitted.memory.body_is_decoded()
            if ids.malformed:
                await admitted.turns.through(check_steps(admitted.body))  # 400 comes before 422
        require_well_formed(ids)
        return await operation.answer(admitted)

    def _event(self, ids: IdHeaders, key: ApiKey | None, counts: Counts, outcome: str, started: float) -> Event:
        return Event(
            event=self._operation.event,
            request_id=ids.request_id,
            owner=key.owner.name if key else None,
            key_id=key.id if key else None,
            purpose=ids.purpose,
            epoch=counts.epoch,
            items=counts.items,
            found=counts.found,
            not_found=counts.not_found,
            replaced=counts.replaced,
            outcome=outcome,
            duration_ms=round((self._services.clock() - started) * 1000, 3),
        )


def _has_left(connection: Connection | None) -> bool:
    return connection is not None and connection.ended


async def _pay_for_decoding(admitted: AdmittedRequest) -> None:
    """Pay for the objects that the body becomes. Raises TooLarge, Busy, and Malformed for a body of too many members."""
    parts = sum(map(admitted.body.count, _PARTS))
    if parts > _FEW_PARTS:
        for so_far in parts_in_steps(admitted.body):
            parts = so_far
            if admitted.turns.over():
                await admitted.turns.next()
    await admitted.pay(cost_of_decoding(admitted.body, parts))
