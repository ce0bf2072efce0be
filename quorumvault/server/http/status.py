"""A node's state: /fields with any key; /health, /livez, /readyz, /limits, /metrics and /openapi.json without one.

The endpoints without a key take no place in admission, so a node that is full still answers them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

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
    admitted.require_key()
    return encode(ConfiguredFields(list(admitted.services.fields.paths)))


@dataclass(frozen=True, slots=True)
class Open:
    """An endpoint that needs no key, as an ASGI application."""

    answer: Callable[[], Response]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Invalid."""
        require_well_formed(id_headers_of(scope))
        await self.answer()(scope, receive, send)


class Status:
    """The answers of the endpoints that need no key."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._live = _response(encode(Live()))

    def health(self) -> Response:
        return self._health(unless=self._services.admission.phase is Phase.DRAINING)

    def ready(self) -> Response:
        """Like /health, and 503 from the moment that the node is asked to stop."""
        return self._health(unless=self._services.admission.phase is not Phase.SERVING)

    def _health(self, *, unless: bool) -> Response:
        health = self._services.health()
        if unless:
            warnings = [*health.warnings, "this node is about to stop"]
            health = msgspec.structs.replace(health, status="unavailable", warnings=warnings)
        return _response(encode(health), 503 if health.status == "unavailable" else 200)

    def live(self) -> Response:
        return self._live

    def limits(self) -> Response:
        return _response(encode(LimitsInForce.of(self._services.limits)))

    def metrics(self) -> Response:
        return _response(self._services.metrics(), media_type=_PROMETHEUS)

    def openapi(self) -> Response:
        return _response(_openapi())


def _response(content: bytes, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(content, status, {"Cache-Control": "no-store"}, media_type)
