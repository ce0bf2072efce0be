"""The HTTP server's bounds on strangers: connections, the head of a request, and how long it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from quorumvault.config.addresses import Address
from quorumvault.config.cluster import Limits, Timeouts
from quorumvault.server.http.server import HttpServer, listening_socket

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def serving(test: Callable[[Connect], Awaitable[None]], limits: Limits | None = None, timeouts: Timeouts | None = None) -> None:
    async def run() -> None:
        listener = listening_socket(Path("test"), "api", Address("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/", hello)])
        server = HttpServer(app, listener, limits or Limits(), timeouts or Timeouts())
        listener.listen()
        server.start()
        opened: list[asyncio.StreamWriter] = []

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(20):
                await test(connect)
        finally:
            for writer in opened:
                writer.close()
            await server.stop()

    asyncio.run(run())


async def answer(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"hello")


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """What came before the other side closed."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_a_connection_serves_request_after_request() -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(REQUEST)
            assert b"200 OK" in await answer(reader)

    serving(test)


@pytest.mark.parametrize(
    "endless", [b"GET /" + b"a" * 5_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 5_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 900]
)
def test_a_head_without_an_end_is_refused(endless: bytes) -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(endless)
        assert b"more than 4096 bytes" in await end_of(reader)

    serving(test, Limits(head_bytes=4_096, headers=1_000))


def test_a_body_does_not_count_as_a_head() -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"b" * 9_000)
        assert b"200 OK" in await answer(reader)
        writer.write(REQUEST)
        assert b"200 OK" in await answer(reader)

    serving(test, Limits(head_bytes=4_096))


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
def test_a_head_that_does_not_come_ends_the_connection(begun: bytes) -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(begun)
        assert await end_of(reader) == b""

    serving(test, timeouts=Timeouts(head=0.05))


def test_an_idle_connection_may_wait_between_requests() -> None:
    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST)
        await answer(reader)
        other, _ = await connect()
        assert await end_of(other) == b""  # a stranger of the same age is gone by now
        writer.write(REQUEST)
        assert b"200 OK" in await answer(reader)

    serving(test, timeouts=Timeouts(head=0.05))


def test_a_connection_is_idle_after_the_rest_of_a_body_that_nobody_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a request that was refused at its head."""
    monkeypatch.setattr("quorumvault.server.http.server._KEEP_ALIVE", 0.2)

    async def test(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert b"200 OK" in await answer(reader)
        writer.write(b"01234")
        assert await end_of(reader) == b""

    serving(test)
