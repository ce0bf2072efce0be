"""The administrative operations, as HTTP on the administrative socket. Whoever can open that may do all of this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quorumvault.admin.bodies import NodeStatus, Reloaded, Stopping
from quorumvault.api.app import framed


@dataclass(frozen=True, slots=True)
class Controls:
    """What a node lets its operator do. ``reload`` is what SIGHUP does, ``stop`` what SIGTERM does: it returns at once."""

    status: Callable[[], NodeStatus]
    reload: Callable[[], Reloaded]
    stop: Callable[[], None]


def create_admin_app(node: Controls, request_ids: Callable[[], str]) -> Starlette:
    """The ASGI application on the administrative socket; ``request_ids`` makes fresh ids."""

    async def status(request: Request) -> Response:
        return _answer(node.status())

    async def reload(request: Request) -> Response:
        return _answer(node.reload())

    async def stop(request: Request) -> Response:
        node.stop()
        return _answer(Stopping(), 202)

    routes = [
        Route("/status", status, methods=["GET"]),
        Route("/reload", reload, methods=["POST"]),
        Route("/stop", stop, methods=["POST"]),
    ]
    return framed(routes, request_ids)


def _answer(content: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
