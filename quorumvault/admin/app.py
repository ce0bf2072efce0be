"""The administrative operations, as HTTP on the administrative socket. Whoever can open that may do all of this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from quorumvault.admin.bodies import NodeStatus, Reloaded, Repaired, Stopping, Verified
from quorumvault.api.app import Exact, framed


@dataclass(frozen=True, slots=True)
class Controls:
    """What a node lets its operator do. ``reload`` is what SIGHUP does, ``stop`` what SIGTERM does: it returns at once.

    ``repair`` and ``verify`` compare this node's replica with the others, and take their time.
    """

    status: Callable[[], NodeStatus]
    reload: Callable[[], Reloaded]
    stop: Callable[[], None]
    repair: Callable[[], Awaitable[Repaired]]
    verify: Callable[[], Awaitable[Verified]]


def create_admin_app(node: Controls, request_ids: Callable[[], str]) -> Starlette:
    """The ASGI application on the administrative socket; ``request_ids`` makes fresh ids."""

    async def status(request: Request) -> Response:
        return _answer(node.status())

    async def reload(request: Request) -> Response:
        return _answer(node.reload())

    async def stop(request: Request) -> Response:
        node.stop()
        return _answer(Stopping(), 202)

    async def repair(request: Request) -> Response:
        return _answer(await node.repair())

    async def verify(request: Request) -> Response:
        return _answer(await node.verify())

    routes = [
        Exact("/status", status, methods=["GET"]),
        Exact("/reload", reload, methods=["POST"]),
        Exact("/stop", stop, methods=["POST"]),
        Exact("/repair", repair, methods=["POST"]),
        Exact("/verify", verify, methods=["POST"]),
    ]
    return framed(routes, request_ids)


def _answer(content: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
