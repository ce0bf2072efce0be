"""The HTTP API: its routes, and the application around them.

RequestIdMiddleware                       request id on every response; what nobody foresaw becomes 500
  Starlette                 404, 405; RequestError becomes a problem
    Pipeline                   key, permission, admission, body; one event a request
      tokenize, detokenize  the operations: bytes in, bytes out, on a Vault
    Status                  health and limits, for everybody
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from quorumvault.errors import Busy, RequestError
from quorumvault.server.http import arrow
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.detokenize import detokenize
from quorumvault.server.http.epochs import epoch, rotate
from quorumvault.server.http.middleware import RequestIdMiddleware
from quorumvault.server.http.pipeline import Operation, Pipeline
from quorumvault.server.http.problems import answer_request_error, answer_routing_error
from quorumvault.server.http.rate_limits import Allowances
from quorumvault.server.http.retokenize import retokenize
from quorumvault.server.http.status import Status, fields
from quorumvault.server.http.tokenize import tokenize
from quorumvault.server.http.tokens import tokens

TOKENIZE = Operation("tokenize", "tokenize", writes=True, answer=tokenize, arrow=arrow.tokenize)
DETOKENIZE = Operation("detokenize", "detokenize", writes=False, answer=detokenize, arrow=arrow.detokenize)
RETOKENIZE = Operation("retokenize", "tokenize", writes=True, answer=retokenize, arrow=arrow.retokenize)
TOKENS = Operation("tokens", "derive", writes=False, answer=tokens)
ROTATE = Operation("rotate_epoch", "rotate", writes=True, answer=rotate)
EPOCH = Operation("epoch", None, writes=False, answer=epoch)
FIELDS = Operation("fields", None, writes=False, answer=fields)


#: Served however many connections are open.
HEALTH_PATHS = ("/health", "/livez", "/readyz", "/metrics")


class Exact(Route):
    """A route of one path. Starlette's own end in a ``$``, which takes a newline at the end of a path as well."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if scope["path"] == self.path else (Match.NONE, {})


def routes(services: Services) -> list[Exact]:
    allowances, status = Allowances(services.clock), Status(services)
    return [
        Exact("/tokenize", Pipeline(services, allowances, TOKENIZE).endpoint, methods=["POST"]),
        Exact("/detokenize", Pipeline(services, allowances, DETOKENIZE).endpoint, methods=["POST"]),
        Exact("/retokenize", Pipeline(services, allowances, RETOKENIZE).endpoint, methods=["POST"]),
        Exact("/tokens", Pipeline(services, allowances, TOKENS).endpoint, methods=["POST"]),
        Exact("/rotate-epoch", Pipeline(services, allowances, ROTATE).endpoint, methods=["POST"]),
        Exact("/epoch", Pipeline(services, allowances, EPOCH).endpoint, methods=["GET"]),
        Exact("/fields", Pipeline(services, allowances, FIELDS).endpoint, methods=["GET"]),
        Exact("/health", status.health, methods=["GET"]),
        Exact("/livez", status.live, methods=["GET"]),
        Exact("/readyz", status.ready, methods=["GET"]),
        Exact("/limits", status.limits, methods=["GET"]),
        Exact("/metrics", status.metrics, methods=["GET"]),
        Exact("/openapi.json", status.openapi, methods=["GET"]),
    ]


#: Requests for which the way through Starlette's middleware and router, fifteen microseconds, is cut short.
_HOT = ("/tokenize", "/detokenize", "/retokenize")


class HotRoutes:
    """An ASGI application in front of Starlette's: what is asked most goes straight to its endpoint, all else to the router.

    An endpoint finds around it what it would find there: ``RequestIdMiddleware``, and the handler of RequestError.
    """

    def __init__(self, app: Starlette, request_ids: Callable[[], str]) -> None:
        self.routes = app.routes
        self._app = app
        hot = [route for route in app.routes if isinstance(route, Exact) and route.path in _HOT]
        self._hot = {route.path: RequestIdMiddleware(_straight(route.endpoint), request_ids) for route in hot}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._hot.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (self._app if endpoint is None else endpoint)(scope, receive, send)


def _straight(endpoint: Callable[[Request], Awaitable[ASGIApp]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except RequestError as error:
            response = await answer_request_error(request, error)
        await response(scope, receive, send)

    return app


def create_app(services: Services) -> HotRoutes:
    """The ASGI application of one node."""
    return HotRoutes(create_starlette(routes(services), services.request_ids), services.request_ids)


def create_crowded_app(services: Services) -> Starlette:
    """The application for a connection that a node has no room for: tells how the node is, and nothing else."""
    app = create_starlette([route for route in routes(services) if route.path in HEALTH_PATHS], services.request_ids)
    app.router.default = _refuse
    return app


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    raise Busy("as many connections are open here as a node takes; wait, or send the request to another node")


def create_starlette(routes: Sequence[Exact], request_ids: Callable[[], str]) -> Starlette:
    """Routes, with what is around all of them. GET routes answer HEAD too; the server leaves the body out."""
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestIdMiddleware, request_ids=request_ids)],
        exception_handlers={RequestError: answer_request_error, HTTPException: answer_routing_error},
    )
    # By default the router would answer a trailing slash with a redirect, which clients follow as a GET.
    app.router.redirect_slashes = False
    return app
