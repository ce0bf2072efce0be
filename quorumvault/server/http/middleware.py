"""Puts the request's id on every response, and turns exceptions into problems. routes.py wraps all endpoints in it.

An exception's text may contain a value (a KeyError's does), so only its type and its traceback without texts are logged. This is
pure ASGI: it adds no task and no queue around a request.
"""

import logging
import traceback
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quorumvault.errors import Internal, RequestError
from quorumvault.server.http.problems import problem_response
from quorumvault.server.http.request_ids import attach, read_id_headers
from quorumvault.server.http.scope import headers_of

_FAULT = "a fault in this node; its log has the place, under this request_id"
_log = logging.getLogger("quorumvault.http")


class RequestIdMiddleware:
    """ASGI middleware. ``request_ids`` makes ids for requests that bring none."""

    def __init__(self, app: ASGIApp, request_ids: Callable[[], str]) -> None:
        self._app = app
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = read_id_headers(headers_of(scope), self._request_ids)
        attach(scope, ids)
        id_header = (b"x-request-id", ids.request_id.encode())
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:
            foreseen = isinstance(error, RequestError) and not started
            if not foreseen:
                _log_exception(ids.request_id, error)
            if not started:
                failure = error if isinstance(error, RequestError) else Internal(_FAULT)
                await problem_response(failure, ids.request_id)(scope, receive, send_with_id)


def _log_exception(request_id: str, error: Exception) -> None:
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request %s: unforeseen %s\n%s", request_id, type(error).__name__, places)
