"""What strangers may do to the HTTP server over raw sockets, on both event loops: what it holds, starts and answers."""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from starlette.types import Receive, Scope, Send

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.server.http import protocol
from quorumvault.server.http.protocol import LARGE_READ, SMALL_READ
from quorumvault.server.http.scope import CONNECTION
from quorumvault.server.http.server import HttpServer, listening_socket
from quorumvault.server.http.turnstile import PART, WORK, Turnstile
from quorumvault.server.telemetry.connection_refusals import Refusal
from tests.rigs.certificates import api_context, trusting
from tests.rigs.links import eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run", "tls")]

PATIENCE = 20
PIECE = b"x" * 256 * 1024
#: The number of PIECEs in an answer too large for any socket's buffers.
PIECES = 64
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs every test without TLS and with it: nothing here may differ."""
    Site.tls = request.param
    yield
    Site.tls = False


class App:
    """``/early`` does not read its body, ``/gate`` waits for the gate, ``/large`` answers in PIECES; others echo the request."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun: list[str] = []
        #: Whether all of the request had arrived when the application got it, and when it had read the body.
        self.received: dict[str, list[bool]] = {}
        self.headers: dict[str, list[tuple[bytes, bytes]]] = {}
        self.pieces = 0
        self.sent: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.begun.append(path)
        self.received[path] = [scope[CONNECTION].received]
        self.headers[path] = scope["headers"]
        if path == "/large":
            await self._large(scope, send)
            return
        body = b"" if path == "/early" else await _whole(receive)
        self.received[path].append(scope[CONNECTION].received)
        if path == "/gate":
            await self.gate.wait()
        answer = b"%s:%s;" % (path.encode(), body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})
        scope[CONNECTION].when_sent(lambda: self.sent.append(path))

    async def _large(self, scope: Scope, send: Send) -> None:
        length = b"%d" % (PIECES * len(PIECE))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for number in range(1, PIECES + 1):
            if scope[CONNECTION].ended:
                return
            await send({"type": "http.response.body", "body": PIECE, "more_body": number < PIECES})
            self.pieces += 1
        scope[CONNECTION].when_sent(lambda: self.sent.append("/large"))


async def crowded(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> bytes:
        """The next answer. It must not be that of ``/large``."""
        return await self.reader.readuntil(b";")

    async def has(self, *answers: bytes) -> None:
        """Asserts that these answers come next: each has the path, and the body that the path received."""
        for wanted in answers:
            assert (await self.answer()).endswith(b"\r\n\r\n" + wanted)

    async def has_large(self) -> None:
        await self.reader.readuntil(b"\r\n\r\n")
        await self.reader.readexactly(PIECES * len(PIECE))

    async def rest(self) -> bytes:
        """All bytes until the other side closes."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await self.reader.read(1 << 20):
                received += data
        return received


@dataclass
class Site:
    """A server, and the refusals that it counted."""

    server: HttpServer
    port: int
    app: App
    counted: Counter[Refusal]
    clients: list[Client] = field(default_factory=list)
    tls: ClassVar = False

    async def sent(self, data: bytes, receive_buffer: int | None = None) -> Client:
        """Connects and sends ``data``. Returns the connection."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        secured: dict[str, Any] = {"ssl": trusting(), "server_hostname": "localhost"} if self.tls else {}
        self.clients.append(Client(*await asyncio.open_connection(sock=connection, limit=4096, **secured)))
        self.clients[-1].writer.write(data)
        return self.clients[-1]

    async def stuck(self) -> Any:
        """Waits until ``/large`` waits for its client to read. Returns the server's end of the connection."""
        await eventually(lambda: self.app.pieces)
        await settled(lambda: self.app.pieces)
        (connection,) = self.connections()
        return connection

    def connections(self) -> list[Any]:
        return [requests._around for requests in self.server._server.server_state.connections]  # type: ignore[union-attr]

    def pass_time(self, seconds: float) -> None:
        """Closes the connections that would be late after so many seconds."""
        for connection in self.connections():
            connection.check(asyncio.get_running_loop().time() + seconds)

    def held(self) -> int:
        """The number of bytes that were read but not parsed."""
        return sum(len(connection._held) for connection in self.connections())

    def close(self) -> None:
        for client in self.clients:
            if self.tls:
                client.writer.transport.abort()  # close() would first wait for the other side to end TLS
            else:
                client.writer.close()


async def settled(value: Callable[[], object]) -> None:
    """Waits until the value has stayed the same for many turns of the loop."""
    last, same = value(), 0
    while same < 50:
        await asyncio.sleep(0.001)
        same = same + 1 if value() == last else 0
        last = value()


@contextlib.asynccontextmanager
async def serving(limits: Limits | None = None, timeouts: Timeouts | None = None) -> AsyncIterator[Site]:
    listener = listening_socket(Path("test"), "api", Address("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app, counted = App(), Counter[Refusal]()
    server = HttpServer(
        app,
        listener,
        limits or Limits(),
        timeouts or Timeouts(),
        crowded,
        lambda refusal: counted.update([refusal]),
        (lambda: api_context()) if Site.tls else None,
    )
    listener.listen()
    server.start()
    site = Site(server, port, app, counted)
    try:
        async with asyncio.timeout(PATIENCE):
            yield site
    finally:
        app.gate.set()
        site.close()
        await server.stop()


@pytest.mark.parametrize(
    ("first", "rest", "at_once"),
    [
        (GET % b"/a", b"", True),
        (SIZED % (b"/a", 4) + b"1234", b"", True),
        (SIZED % (b"/a", 4) + b"1234" + GET % b"/b", b"", True),
        (SIZED % (b"/a", 4), b"1234", False),
        (SIZED % (b"/a", 4) + b"123", b"4", False),
        (CHUNKED % b"/a" + b"1\r\nq\r\n0\r\n\r\n", b"", True),
        (CHUNKED % b"/a" + b"1\r\nq\r\n", b"0\r\n\r\n", False),
    ],
)
async def test_the_application_is_told_whether_all_of_a_request_is_here(first: bytes, rest: bytes, at_once: bool) -> None:
    async with serving() as site:
        client = await site.sent(first)
        await eventually(lambda: site.app.begun)
        client.writer.write(rest)
        await client.answer()
        assert site.app.received["/a"] == [at_once, True]


# The parts of a chunked body.


async def test_trailers_are_not_headers() -> None:
    trailers = b"Authorization: Bearer k\r\nExpect: 100-continue\r\n\r\n"
    async with serving() as site:
        client = await site.sent(CHUNKED % b"/a" + b"1\r\nq\r\n0\r\n" + trailers + GET % b"/b")
        await client.has(b"/a:q;", b"/b:;")
        assert site.app.headers["/a"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    ("endless", "why"),
    [
        (b"1\r\nq\r\n0\r\nX: " + b"t" * 200_000, b"its trailers"),
        (b"1\r\nq\r\n0\r\n" + b"a:\r\n" * 102, b"more than 100 header fields, or trailers"),
        (b"1;" + b"e" * 200_000, b"their extensions"),
        (b"1\r\nq\r\n" * 30_000, b"chunk headers"),
        (b"1;" + b"e" * 999 + b"\r\nq\r\n" + (b"1;" + b"e" * 999 + b"\r\nq\r\n") * 300, b"chunk headers"),
        (b"zz\r\n", b"Invalid HTTP request"),
    ],
)
@pytest.mark.parametrize("path", [b"/early", b"/a"])
async def test_what_is_around_the_body_is_bounded(path: bytes, endless: bytes, why: bytes) -> None:
    async with serving() as site:
        client = await site.sent(CHUNKED % path + endless)
        received = await client.rest()
        assert b"400 Bad Request" in received
        assert why in received
        assert site.counted == {Refusal.MALFORMED: 1}


async def test_a_body_in_large_chunks_goes_through() -> None:
    async with serving() as site:
        client = await site.sent(CHUNKED % b"/a" + (b"3e8\r\n" + b"\r\n" * 500 + b"\r\n") * 200 + b"0\r\n\r\n" + GET % b"/b")
        assert (await client.reader.readexactly(200_000)).count(b"\r\n") > 99_000
        await client.answer()
        await client.has(b"/b:;")


async def test_however_the_bytes_are_cut_the_answers_are_the_same() -> None:
    chunks = b"4;x=y\r\n\r\n\r\n\r\n0\r\nt: r\r\n\r\n"
    stream = b"\r\n" + SIZED % (b"/a", 4) + b"\r\n\r\n" + CHUNKED % b"/b" + chunks + GET % b"/c"
    async with serving() as site:
        for cut in range(1, len(stream)):
            client = await site.sent(stream[:cut])
            await asyncio.sleep(0)
            client.writer.write(stream[cut:])
            await client.has(b"/a:\r\n\r\n;", b"/b:\r\n\r\n;", b"/c:;")
            client.writer.close()
        assert not site.counted


# Requests that arrive before the previous one is answered.


async def test_a_turn_takes_few_parts_however_short_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS client may send each byte of a body in a record of its own, and each then arrives separately."""
    parts, most, begin, feed = 0, 0, Turnstile._begin_turn, protocol.Connection._feed

    def counted(connection: protocol.Connection, part: memoryview) -> None:
        nonlocal parts, most
        parts += 1
        most = max(most, parts)
        feed(connection, part)

    def another(turnstile: Turnstile) -> None:
        nonlocal parts
        parts = 0
        begin(turnstile)

    monkeypatch.setattr(protocol.Connection, "_feed", counted)
    monkeypatch.setattr(Turnstile, "_begin_turn", another)
    clients, size = 3, 2_000
    async with serving() as site:
        for number in range(clients):
            path = b"/%d" % number
            client = await site.sent(SIZED % (path, size))
            for _ in range(size):
                client.writer.write(b"x")
        for number, client in enumerate(site.clients):
            await client.has(b"/%d:%s;" % (number, b"x" * size))
        assert most <= WORK // PART + clients


async def test_pipelined_requests_begin_one_after_the_other() -> None:
    many = [b"/%d" % number for number in range(2_000)]

    async with serving() as site:
        client = await site.sent(GET % b"/gate" + b"".join(GET % path for path in many))
        await eventually(lambda: site.app.begun)
        await settled(site.held)
        assert site.app.begun == ["/gate"]
        assert 0 < site.held() <= SMALL_READ
        site.app.gate.set()
        await client.has(b"/gate:;", *(path + b":;" for path in many))


async def test_many_who_pipeline_have_one_request_each_under_way() -> None:
    async with serving() as site:
        for _ in range(40):
            await site.sent(GET % b"/gate" * 5_000)
        await eventually(lambda: len(site.app.begun) == 40)
        await settled(site.held)
        assert site.held() <= 40 * SMALL_READ
        assert len(site.app.begun) == 40


async def test_nothing_begins_behind_an_answer_that_is_not_read() -> None:
    async with serving() as site:
        client = await site.sent(GET % b"/large" + GET % b"/a", receive_buffer=4096)
        connection = await site.stuck()
        assert site.app.pieces < PIECES
        assert site.app.begun == ["/large"]
        assert 0 < connection._transport.get_write_buffer_size() <= len(PIECE) + 4096
        await client.has_large()
        await client.has(b"/a:;")


# Answers.


async def test_it_is_told_when_an_answer_has_left() -> None:
    async with serving() as site:
        client = await site.sent(GET % b"/a", receive_buffer=4096)
        await client.answer()
        await eventually(lambda: site.app.sent == ["/a"])
        called: list[str] = []
        client.writer.write(GET % b"/large")
        (await site.stuck()).when_sent(lambda: called.append("some"))
        assert called == []
        await client.has_large()
        await eventually(lambda: site.app.sent == ["/a", "/large"])
        assert called == ["some"]


async def test_it_is_told_when_an_answer_will_never_leave() -> None:
    async with serving() as site:
        client = await site.sent(GET % b"/large", receive_buffer=4096)
        called: list[str] = []
        connection = await site.stuck()
        connection.when_sent(lambda: called.append("lost"))
        client.writer.transport.abort()
        await eventually(lambda: called)
        connection.when_sent(lambda: called.append("after"))
        assert called == ["lost", "after"]


async def test_an_answer_that_nobody_reads_ends_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(timeouts=Timeouts(send=0.05)) as site:
        await site.sent(GET % b"/large", receive_buffer=4096)
        await eventually(lambda: site.app.begun)
        await eventually(lambda: not site.connections())
        assert site.counted == {Refusal.UNREAD: 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_connection_that_closes_under_an_answer_is_no_stack_trace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving() as site:
            for path in (b"/large", b"/gate"):
                for last in (b"", b"GET /unfinished"):
                    await site.sent(GET % path + last, receive_buffer=4096)
            await eventually(lambda: len(site.app.begun) == 4)
            site.close()
            site.app.gate.set()
            await eventually(lambda: not site.connections())
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


# Late requests.


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_head_that_does_not_come_ends_the_connection(begun: bytes) -> None:
    async with serving() as site:
        client = await site.sent(begun)
        await eventually(site.connections)
        site.pass_time(Timeouts().head + 1)
        assert await client.rest() == b""


async def test_an_idle_connection_may_wait_between_requests() -> None:
    async with serving() as site:
        client = await site.sent(GET % b"/a")
        await client.answer()
        other = await site.sent(b"")
        await eventually(lambda: len(site.connections()) == 2)
        site.pass_time(Timeouts().head + 1)
        assert await other.rest() == b""  # a connection of the same age that never sent a request
        client.writer.write(GET % b"/b")
        await client.has(b"/b:;")


async def test_a_connection_is_idle_after_the_rest_of_a_body_that_nobody_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is refused at its head leaves the rest of its body unread."""
    monkeypatch.setattr("quorumvault.server.http.server._KEEP_ALIVE", 0.2)

    async with serving() as site:
        client = await site.sent(SIZED % (b"/early", 5))
        await client.has(b"/early:;")
        client.writer.write(b"01234")
        assert await client.rest() == b""


# What follows an answer.


async def test_the_rest_of_a_body_is_thrown_away_and_the_connection_goes_on() -> None:
    async with serving() as site:
        client = await site.sent(SIZED % (b"/early", 3 * LARGE_READ) + b"b" * 3 * LARGE_READ)
        client.writer.write(CHUNKED % b"/early" + b"3e8\r\n" + b"c" * 1000 + b"\r\n0\r\n\r\n" + GET % b"/a")
        await client.has(b"/early:;", b"/early:;", b"/a:;")


@pytest.mark.parametrize(
    "request_head", [SIZED % (b"/early", 10_000_000), CHUNKED % b"/early" + b"989680\r\n"], ids=["sized", "chunked"]
)
async def test_the_rest_of_a_body_is_not_thrown_away_without_end(request_head: bytes) -> None:
    async with serving(Limits(body_bytes=10_000)) as site:
        client = await site.sent(request_head + b"b" * 10_000_000)
        assert b"/early:;" in await client.rest()
        await eventually(lambda: not site.connections())
        assert site.held() == 0


@pytest.mark.parametrize(
    "begun",
    [
        SIZED % (b"/early", 5) + b"1234",
        SIZED % (b"/a", 5) + b"1234",
        CHUNKED % b"/early" + b"1\r\nq\r\n0\r\nt: r",
        CHUNKED % b"/a" + b"1;exten",
        GET % b"/early" + b"GET /unfin",
    ],
)
async def test_a_request_that_does_not_end_ends_its_connection(begun: bytes) -> None:
    async with serving() as site:
        client = await site.sent(begun)
        if b"/early" in begun:
            await client.has(b"/early:;")
        await eventually(lambda: any(not each.received or each._head_bytes for each in site.connections()))
        site.pass_time(Timeouts().body + protocol._GRACE_SECONDS + 1)
        assert await client.rest() == b""
        assert site.counted == {Refusal.LATE: 1}


# What is not HTTP/1.1, or only part of it.


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000,
        b"\r\n" * 40_000,
    ],
)
async def test_what_is_not_taken_is_refused_and_counted(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving() as site:
            client = await site.sent(GET % b"/first" + data)
            received = await client.rest()
            assert b"/first:;" in received
            assert received.count(b"HTTP/1.1 400 Bad Request") == 1
            assert site.counted == {Refusal.MALFORMED: 1}
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage() == "HTTP connections refused or ended: 1 http-malformed"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET http://elsewhere/a HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nExpect: the unexpected\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"\r\n\r\n\r\nGET /a HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_unusual_is_served_and_the_connection_goes_on(data: bytes) -> None:
    async with serving() as site:
        client = await site.sent(data + GET % b"/b")
        await client.has(b"/a:;", b"/b:;")
        assert not site.counted


async def test_a_client_that_waits_to_be_told_to_go_on_is_told() -> None:
    async with serving() as site:
        client = await site.sent(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"ok")
        await client.has(b"/a:ok;")


async def test_an_answer_without_a_body_leaves() -> None:
    async with serving() as site:
        client = await site.sent(b"HEAD /a HTTP/1.1\r\n\r\n")
        assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")
        client.writer.write(b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await client.rest()


# Many connections.


async def test_the_longest_idle_connection_is_closed_for_a_new_one() -> None:
    async with serving(Limits(connections=10)) as site:
        clients = [await site.sent(GET % b"/a") for _ in range(9)]
        for client in clients:
            await client.answer()
        clients[0].writer.write(GET % b"/gate")
        await eventually(lambda: "/gate" in site.app.begun)
        new = await site.sent(GET % b"/b")
        await new.has(b"/b:;")
        assert await clients[1].rest() == b""
        site.app.gate.set()
        await clients[0].has(b"/gate:;")
        assert site.counted == {Refusal.CLOSED_FOR_ROOM: 1}


async def test_whoever_comes_when_none_is_idle_has_one_answer_from_another_application() -> None:
    async with serving(Limits(connections=10)) as site:
        clients = [await site.sent(GET % b"/gate") for _ in range(9)]
        await eventually(lambda: len(site.app.begun) == 9)
        for _ in range(3):
            new = await site.sent(GET % b"/a" + GET % b"/b")
            received = await new.rest()
            assert received.startswith(b"HTTP/1.1 429 ")
            assert received.count(b"connection: close") == received.count(b"HTTP/1.1 ") == 1
        site.app.gate.set()
        for client in clients:
            await client.has(b"/gate:;")
        assert site.app.begun == ["/gate"] * 9


async def test_one_address_has_its_share_of_the_connections() -> None:
    async with serving(Limits(connections_per_address=2)) as site:
        first, second, third = [await site.sent(b"") for _ in range(3)]
        assert await first.rest() == b""
        for client in (second, third):
            client.writer.write(GET % b"/a")
            await client.has(b"/a:;")
