"""A node's state: /fields with any key; /health, /livez, /readyz, /limits, /metrics and /openapi.json without one.

The endpoints without a key take no place in admission, so a node that is full still answers them.
"""

import functools

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quorumvault.server.http.admission import Phase
from quorumvault.server.http.dependencies import AdmittedRequest, Services
from quorumvault.server.http.openapi import document
from quorumvault.server.http.request_ids import id_headers_of, require_well_formed
from quorumvault.server.http.schemas import ConfiguredFields, LimitsInForce, Live, encode

#: The text format that every release of Prometheus reads.
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@functools.cache
def _openapi() -> bytes:
    """Return the document, which never changes. The first call makes it, in some milliseconds."""
    return encode(document())


async def fields(admitted: AdmittedRequest) -> bytes:
    return encode(ConfiguredFields(list(admitted.services.fields.paths)))


class Status:
    """The endpoints that need no key."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, request: Request) -> Response:
        return self._health(request, unless=self._services.admission.phase is Phase.DRAINING)

    async def ready(self, request: Request) -> Response:
        """Like /health, and 503 from the moment that the node is asked to stop."""
        return self._health(request, unless=self._services.admission.phase is not Phase.SERVING)

    def _health(self, request: Request, *, unless: bool) -> Response:
        health = self._services.health()
        if unless:
            warnings = [*health.warnings, "this node is about to stop"]
            health = msgspec.structs.replace(health, status="unavailable", warnings=warnings)
        return _open_response(request, encode(health), 503 if health.status == "unavailable" else 200)

    async def live(self, request: Request) -> Response:
        return _open_response(request, encode(Live()))

    async def limits(self, request: Request) -> Response:
        return _open_response(request, encode(LimitsInForce.of(self._services.limits)))

    async def metrics(self, request: Request) -> Response:
        return _open_response(request, self._services.metrics(), media_type=_PROMETHEUS)

    async def openapi(self, request: Request) -> Response:
        return _open_response(request, _openapi())


def _open_response(request: Request, content: bytes, status: int = 200, media_type: str = "application/json") -> Response:
    require_well_formed(id_headers_of(request.scope))
    return Response(content, status, {"Cache-Control": "no-store"}, media_type)
