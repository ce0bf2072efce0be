"""The HTTP API: its routes, and the application around them.

HotRoutes                     POST /tokenize, /detokenize and /retokenize pass by Starlette; _straight answers their RequestErrors
  RequestIdMiddleware         request id on every response; an exception that nobody foresaw becomes 500
    Starlette                 404, 405; a RequestError becomes a problem
      Pipeline                key, permission, admission, body; one event for each request
        tokenize, detokenize  the operations: an AdmittedRequest in, Content out, on a Vault
      Status                  health and limits, without a key
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

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


class Exact(Route):
    """A route of exactly one path. Starlette's own pattern ends in ``$``, which accepts a newline at the end of a path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if scope["path"] == self.path else (Match.NONE, {})


def routes(services: Services) -> list[Exact]:
    allowances, status = Allowances(services.clock), Status(services)
    return [
        *(
            Exact(path, Pipeline(services, allowances, operation).endpoint, methods=[method])
            for (method, path), operation in OPERATIONS.items()
        ),
        Exact("/health", status.health, methods=["GET"]),
        Exact("/livez", status.live, methods=["GET"]),
        Exact("/readyz", status.ready, methods=["GET"]),
        Exact("/limits", status.limits, methods=["GET"]),
        Exact("/metrics", status.metrics, methods=["GET"]),
        Exact("/openapi.json", status.openapi, methods=["GET"]),
    ]


#: Paths that skip Starlette's middleware and router, which take fifteen microseconds.
_HOT: Final = ("/tokenize", "/detokenize", "/retokenize")


class HotRoutes:
    """An ASGI application in front of Starlette's. Frequent requests go straight to their endpoint, all others to the router.

    Around an endpoint is what would be around it there: ``RequestIdMiddleware``, and the handler of RequestError.
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
    """Return the ASGI application of one node."""
    return HotRoutes(create_starlette(routes(services), services.request_ids), services.request_ids)


def create_crowded_app(services: Services) -> Starlette:
    """Return the application for a connection without room: it answers about the node's health, and 429 to all else."""
    app = create_starlette([route for route in routes(services) if route.path in HEALTH_PATHS], services.request_ids)
    app.router.default = _refuse
    return app


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    raise Busy("as many connections are open here as a node takes; wait, or send the request to another node")


def create_starlette(routes: Sequence[Exact], request_ids: Callable[[], str]) -> Starlette:
    """Return an application of these routes, with request ids and problems. GET routes answer HEAD too, without the body."""
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestIdMiddleware, request_ids=request_ids)],
        exception_handlers={RequestError: answer_request_error, HTTPException: answer_routing_error},
    )
    # By default the router would answer a trailing slash with a redirect, which clients follow as a GET.
    app.router.redirect_slashes = False
    return app
