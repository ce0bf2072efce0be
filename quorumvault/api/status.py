"""What a node says of itself: /fields to whoever has a key, /health, /livez, /readyz and /limits to everybody.

Nothing here counts as a request under way, so a node that is full still says how it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quorumvault.api.admission import Phase
from quorumvault.api.bodies import ConfiguredFields, LimitsInForce, Live, encode
from quorumvault.api.guard import Counts
from quorumvault.api.health import Health
from quorumvault.api.labels import labels_of, require_well_formed
from quorumvault.api.services import Services
from quorumvault.model import Owner

_Endpoint = Callable[[Request], Awaitable[Response]]


async def fields(services: Services, _owner: Owner, _body: bytes, _counts: Counts) -> bytes:
    return encode(ConfiguredFields(list(services.fields.paths)))


class Status:
    """The endpoints that need no key."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, request: Request) -> Response:
        return _health_response(request, self._services.health())

    async def ready(self, request: Request) -> Response:
        """Like /health, and 503 from the moment that the node is asked to stop."""
        health = self._services.health()
        if self._services.admission.phase is not Phase.SERVING:
            warnings = [*health.warnings, "this node is about to stop"]
            health = msgspec.structs.replace(health, status="unavailable", warnings=warnings)
        return _health_response(request, health)

    async def live(self, request: Request) -> Response:
        return _open_response(request, encode(Live()))

    async def limits(self, request: Request) -> Response:
        limits = self._services.limits
        in_force = LimitsInForce(limits.items, limits.record_values, limits.body_bytes, limits.value_bytes, limits.in_flight)
        return _open_response(request, encode(in_force))


def _health_response(request: Request, health: Health) -> Response:
    return _open_response(request, encode(health), 503 if health.status == "unavailable" else 200)


def _open_response(request: Request, content: bytes, status: int = 200) -> Response:
    require_well_formed(labels_of(request.scope))
    return Response(content, status, {"Cache-Control": "no-store"}, "application/json")
