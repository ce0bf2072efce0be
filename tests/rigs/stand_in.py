"""A stand-in for a node, on real sockets, which answers when a test says so; and processes forked off a test."""

import contextlib
import itertools
import json
import os
import pickle
import queue
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

LIMITS = {"items": 100, "body_bytes": 100_000, "value_bytes": 1000}
HEALTH = {"status": "ok", "node": "n1", "state": "active", "quorum": {"needed": 2, "reachable": 3}, "peers": {}}
PROBLEM = {"detail": "the key lacks this operation", "code": "not-permitted", "retryable": False}
#: Seconds that nothing in these tests takes; a process that takes longer is stuck, and fails.
LONG = 60


def value_of(token: str) -> str:
    return f"the value of {token}"


@dataclass(frozen=True)
class Request:
    """A request on the connection of this number; ``token`` is the token it asks about, if any."""

    connection: int
    request_id: str
    path: str
    token: str | None
    send: Callable[[bytes], object]

    def answer(self) -> None:
        """Answers as a node does."""
        self.send(self.reply())

    def reply(self, status: int = 200, ids: list[str] | None = None) -> bytes:
        """An answer whose head has these ids, or the request's id. If ``status`` is an error, the answer is a problem."""
        body = json.dumps(self._told() if status < 400 or self.path == "/health" else PROBLEM).encode()
        names = "".join(f"X-Request-ID: {each}\r\n" for each in ([self.request_id] if ids is None else ids))
        return f"HTTP/1.1 {status} Words\r\n{names}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _told(self) -> dict[str, Any]:
        told: dict[str, dict[str, Any]] = {"/limits": LIMITS, "/epoch": {"active_epoch": 1}, "/health": HEALTH}
        return told.get(self.path) or {"results": [{"status": "ok", "value": value_of(self.token or "")}]}


class StandIn:
    """Keeps all requests in order of arrival. Calls ``behave`` with each, in the thread of its connection.

    Unlike a node, it reads more requests of a connection while earlier ones have no answer yet.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.behave: Callable[[Request], object] = Request.answer
        self.requests: list[Request] = []
        #: The numbers of the connections that the other end has closed, in the order of their ends.
        self.closed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def hold(self) -> queue.SimpleQueue[Request]:
        """From now on requests wait in this queue instead of getting an answer."""
        held: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.behave = held.put
        return held

    def serve(self, number: int, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while head := _head(lines):
                self.take(number, connection, head, lines)
        self.closed.put(number)

    def take(self, number: int, connection: socket.socket, head: list[bytes], lines: BinaryIO) -> None:
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head[1:])}
        body = json.loads(lines.read(int(headers.get(b"content-length", 0))) or b"{}")
        path = head[0].split()[1].decode()
        (token,) = body.get("tokens", [None])
        request = Request(number, headers[b"x-request-id"].decode(), path, token, connection.sendall)
        self.requests.append(request)
        self.behave(request)

    def connections_of(self, token: str) -> set[int]:
        return {request.connection for request in self.requests if request.token == token}


def _head(lines: BinaryIO) -> list[bytes]:
    """The lines of a head, without the empty line at its end; empty if the connection was closed."""
    head: list[bytes] = []
    while (line := lines.readline()) not in (b"", b"\r\n"):
        head.append(line)
    return head


@contextlib.contextmanager
def standing_in(tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = StandIn(f"http{'s' if tls else ''}://localhost:{listener.getsockname()[1]}")
        threads: list[threading.Thread] = []
        open_ones: list[socket.socket] = []

        def accept() -> None:
            for number in itertools.count():
                try:
                    connection = listener.accept()[0]
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    open_ones.append(tls.wrap_socket(connection, server_side=True) if tls else connection)
                except OSError:
                    return
                threads.append(threading.Thread(target=node.serve, args=(number, open_ones[-1])))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield node
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for connection in open_ones:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


class Forked:
    """A process forked off this one, which does ``work`` and nothing else. It is killed if it gets stuck."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        try:
            signal.alarm(LONG)
            os.write(writer, pickle.dumps(_outcome(work)))
        finally:
            os._exit(0)

    def stop(self) -> None:
        """Stops the process. Returns once it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def result(self) -> Any:
        """Returns what ``work`` returned, or the exception that it raised, after the process has ended; None if it was killed."""
        with open(self._reader, "rb") as told:
            content = told.read()
        os.waitpid(self.pid, 0)
        return pickle.loads(content) if content else None


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except BaseException as error:
        return error
