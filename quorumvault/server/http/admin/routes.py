"""The administrative operations, as HTTP on the administrative socket. Anyone who can open the socket may call all of them."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quorumvault.server.http.admin.schemas import NodeStatus, Reloaded, Repaired, RevokedKey, RevokedKeys, Stopping, Verified
from quorumvault.server.http.routes import create_starlette


@dataclass(frozen=True, slots=True)
class Controls:
    """The operations of a node for its operator. ``reload`` does what SIGHUP does; ``stop`` what SIGTERM does, at once.

    ``repair`` and ``verify`` compare this node's replica with the others, which may take minutes. ``repair`` is told whether what
    no disk can read may be given up. ``backup`` yields its bytes.
    ``revoke`` takes the id of an API key. Raises NoQuorum, Invalid.
    """

    status: Callable[[], NodeStatus]
    reload: Callable[[], Reloaded]
    stop: Callable[[], None]
    repair: Callable[[bool], Awaitable[Repaired]]
    verify: Callable[[], Awaitable[Verified]]
    backup: Callable[[], AsyncGenerator[bytes, None]]
    revoke: Callable[[str], Awaitable[RevokedKey]]
    revoked: Callable[[], RevokedKeys]


def create_admin_app(node: Controls, request_ids: Callable[[], str]) -> Starlette:
    """Return the ASGI application on the administrative socket. ``request_ids`` makes fresh ids."""

    async def status(request: Request) -> Response:
        return _answer(node.status())

    async def reload(request: Request) -> Response:
        return _answer(node.reload())

    async def stop(request: Request) -> Response:
        node.stop()
        return _answer(Stopping(), 202)

    async def repair(request: Request) -> Response:
        return _answer(await node.repair(request.query_params.get("accept_loss") == "yes"))

    async def verify(request: Request) -> Response:
        return _answer(await node.verify())

    async def backup(request: Request) -> Response:
        chunks = node.backup()
        # A backup that cannot begin raises before its first bytes: the refusal is then an answer of its own.
        return _Chunks(await anext(chunks), chunks)

    async def revoke(request: Request) -> Response:
        return _answer(await node.revoke(request.query_params.get("key_id", "")))

    async def revoked(request: Request) -> Response:
        return _answer(node.revoked())

    gets = {"/status": status, "/revoked": revoked}
    posts = {"/reload": reload, "/stop": stop, "/repair": repair, "/verify": verify, "/backup": backup, "/revoke": revoke}
    endpoints = {("GET", path): get for path, get in gets.items()} | {("POST", path): post for path, post in posts.items()}
    return create_starlette(endpoints, request_ids)


def _answer(content: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


class _Chunks(StreamingResponse):
    """Sends bytes as fast as the reader takes them. Closes their source in any case, even if the reader leaves."""

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
