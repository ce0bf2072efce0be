"""The HTTP API: its routes, and the application around them.

Application                   finds the endpoint of a method and a path; if there is none, Starlette answers
  RequestIdMiddleware         request id on every response; a RequestError becomes a problem, an unforeseen exception 500
    Pipeline                  key, permission, admission, body; one event for each request
      tokenize, detokenize    the operations: an AdmittedRequest in, Content out, on a Vault
    Open                      health and limits, without a key
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from quorumvault.errors import Busy
from quorumvault.server.http import arrow
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.detokenize import detokenize
from quorumvault.server.http.epochs import epoch, rotate
from quorumvault.server.http.middleware import RequestIdMiddleware
from quorumvault.server.http.pipeline import Operation, Pipeline
from quorumvault.server.http.problems import answer_routing_error
from quorumvault.server.http.rate_limits import Allowances
from quorumvault.server.http.retokenize import retokenize
from quorumvault.server.http.status import Open, Status, fields
from quorumvault.server.http.tokenize import tokenize
from quorumvault.server.http.tokens import tokens

#: By method and path.
OPERATIONS: Final = {
    ("POST", "/tokenize"): Operation("tokenize", "tokenize", writes=True, answer=tokenize, arrow=arrow.tokenize),
    ("POST", "/detokenize"): Operation("detokenize", "detokenize", writes=False, answer=detokenize, arrow=arrow.detokenize),
    ("POST", "/retokenize"): Operation("retokenize", "tokenize", writes=True, answer=retokenize, arrow=arrow.retokenize),
    ("POST", "/tokens"): Operation("tokens", "derive", writes=False, answer=tokens),
    ("POST", "/rotate-epoch"): Operation("rotate_epoch", "rotate", writes=True, answer=rotate),
    ("GET", "/epoch"): Operation("epoch", None, writes=False, answer=epoch),
    ("GET", "/fields"): Operation("fields", None, writes=False, answer=fields),
}
#: Paths that are served however many connections are open.
HEALTH_PATHS: Final = ("/health", "/livez", "/readyz", "/metrics")

#: Endpoints by method and path. Each is an ASGI application, or a function that Starlette makes one of.
Endpoints: TypeAlias = Mapping[tuple[str, str], Callable[..., Any]]


def endpoints(services: Services) -> Endpoints:
    """Return the endpoints of the API, in the order in which people are shown them."""
    allowances, status = Allowances(services.clock), Status(services)
    return {
        **{where: Pipeline(services, allowances, operation) for where, operation in OPERATIONS.items()},
        ("GET", "/health"): Open(status.health),
        ("GET", "/livez"): Open(status.live),
        ("GET", "/readyz"): Open(status.ready),
        ("GET", "/limits"): Open(status.limits),
        ("GET", "/metrics"): Open(status.metrics),
        ("GET", "/openapi.json"): Open(status.openapi),
    }


class Application:
    """An ASGI application in front of Starlette's: a request whose method and path are known goes straight to its endpoint.

    Starlette's middleware and router take fifteen microseconds. They handle the rest: unknown routes (404, 405), and HEAD.
    """

    def __init__(self, endpoints: Endpoints, request_ids: Callable[[], str]) -> None:
        self._endpoints = {where: RequestIdMiddleware(endpoint, request_ids) for where, endpoint in endpoints.items()}
        self._rest = create_starlette(endpoints, request_ids)
        self.routes = self._rest.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get((scope.get("method", ""), scope.get("path", "")), self._rest)
        await endpoint(scope, receive, send)


def create_app(services: Services) -> Application:
    """Return the ASGI application of one node."""
    return Application(endpoints(services), services.request_ids)


def create_crowded_app(services: Services) -> Starlette:
    """Return the application for a connection without room: it answers about the node's health, and 429 to all else."""
    healthy = {where: endpoint for where, endpoint in endpoints(services).items() if where[1] in HEALTH_PATHS}
    app = create_starlette(healthy, services.request_ids)
    app.router.default = _refuse
    return app


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    raise Busy("as many connections are open here as a node takes; wait, or send the request to another node")


class Exact(Route):
    """A route of exactly one path. Starlette's own pattern ends in ``$``, which accepts a newline at the end of a path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if scope["path"] == self.path else (Match.NONE, {})


def create_starlette(endpoints: Endpoints, request_ids: Callable[[], str]) -> Starlette:
    """Return an application of these endpoints, with request ids and problems. GET routes answer HEAD too, without the body."""
    app = Starlette(
        routes=[Exact(path, endpoint, methods=[method]) for (method, path), endpoint in endpoints.items()],
        middleware=[Middleware(RequestIdMiddleware, request_ids=request_ids)],
        exception_handlers={HTTPException: answer_routing_error},
    )
    # By default the router would answer a trailing slash with a redirect, which clients follow as a GET.
    app.router.redirect_slashes = False
    return app
