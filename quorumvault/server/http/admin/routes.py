"""The administrative operations, as HTTP on the administrative socket. Whoever can open that may do all of this."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quorumvault.server.http.admin.schemas import NodeStatus, Reloaded, Repaired, Stopping, Verified
from quorumvault.server.http.routes import Exact, create_starlette


@dataclass(frozen=True, slots=True)
class Controls:
    """What a node lets its operator do. ``reload`` is what SIGHUP does, ``stop`` what SIGTERM does: it returns at once.

    ``repair`` and ``verify`` compare this node's replica with the others, and take their time. ``backup`` gives the bytes of one.
    """

    status: Callable[[], NodeStatus]
    reload: Callable[[], Reloaded]
    stop: Callable[[], None]
    repair: Callable[[], Awaitable[Repaired]]
    verify: Callable[[], Awaitable[Verified]]
    backup: Callable[[], AsyncGenerator[bytes, None]]


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

    async def backup(request: Request) -> Response:
        chunks = node.backup()
        # Whether it can begin is known with its first bytes: until then a refusal is an answer of its own.
        return _Chunks(await anext(chunks), chunks)

    routes = [
        Exact("/status", status, methods=["GET"]),
        Exact("/reload", reload, methods=["POST"]),
        Exact("/stop", stop, methods=["POST"]),
        Exact("/repair", repair, methods=["POST"]),
        Exact("/verify", verify, methods=["POST"]),
        Exact("/backup", backup, methods=["POST"]),
    ]
    return create_starlette(routes, request_ids)


def _answer(content: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


class _Chunks(StreamingResponse):
    """Bytes as fast as they are taken (``send`` waits for that). Their source is closed in any case, even if the taker leaves."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_all(first, rest), media_type="application/octet-stream")
        self._source = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._source):
            await super().__call__(scope, receive, send)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
