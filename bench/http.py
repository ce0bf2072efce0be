"""A cheap load client: it encodes requests beforehand, waits on all sockets in one thread, and leaves bodies as they are.

The client shares the machine with the nodes, so each microsecond of its CPU is taken from them; a general HTTP library would use
more CPU than the nodes. httptools, which the nodes use too, only parses the framing of answers.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import ssl
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import httptools

_READ_BYTES = 1 << 18
#: Longer than a node takes to give up by itself, with the deadlines that load.py sets.
_SILENCE_SECONDS = 90.0
#: A node closes an idle connection (its deadlines ``head`` and keep-alive, 10 s and more). The client does not reuse a connection
#: that was idle for this long, so that none is closed under a request.
_KEPT_SECONDS = 2.0


class LoadFailed(Exception):
    """A node answered with a wrong status, or not at all."""


def encode(path: str, key: str, body: bytes) -> bytes:
    """Returns one request, ready to send."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True, repr=False)
class Driven:
    """``bodies`` of the answers and ``latencies`` in seconds, in the order of the requests; ``seconds``: for all of them."""

    seconds: float
    latencies: array[float]
    bodies: list[bytes]


class Connection:
    """One request at a time over a non-blocking socket. Bytes that the kernel does not take at once wait in ``unsent``.

    ``on_body`` and ``on_message_complete`` are httptools' callbacks.

    ``due``: the time at which the request is due, by ``time.perf_counter``. ``node``: the index of its node in a list.
    """

    __slots__ = ("_complete", "_parser", "_parts", "due", "idle_since", "node", "request", "socket", "unsent")

    def __init__(self, node: int, opened: Socket) -> None:
        self.node = node
        self.request = -1
        self.due = 0.0
        self.idle_since = time.perf_counter()
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._complete = False
        self.unsent: bytes | memoryview = b""
        self.socket = opened
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, number: int, due: float, request: bytes) -> None:
        self.request, self.due, self.unsent = number, due, memoryview(request)
        self.flush()

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    @property
    def events(self) -> int:
        """The events to poll for."""
        return select.EPOLLIN | (select.EPOLLOUT if self.unsent else 0)

    def serve(self, events: int, poll: select.epoll) -> tuple[int, bytes] | None:
        """Sends and receives what it can. Returns status and body once they have arrived, and then stops polling.

        Raises ConnectionError if they cannot arrive any more.
        """
        if events & select.EPOLLOUT:
            self.flush()
            poll.modify(self.fileno(), self.events)
        answer = self._receive() if events & ~select.EPOLLOUT else None
        if answer is not None:
            poll.unregister(self.fileno())
            self.idle_since = time.perf_counter()
        return answer

    def _receive(self) -> tuple[int, bytes] | None:
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:  # part of a TLS record
            return None
        if not data:
            raise ConnectionResetError("a node closed the connection")
        self._parser.feed_data(data)
        if not self._complete:
            return None
        body = b"".join(self._parts)
        self._parts, self._complete = [], False
        return self._parser.get_status_code(), body

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self._complete = True


class Lane:
    """One request at a time, to one of the nodes, over one persistent connection to each."""

    def __init__(self, addresses: Sequence[str], tls: ssl.SSLContext | None) -> None:
        self._addresses = addresses
        self._tls = tls
        self._connections = [Connection(node, _connect(address, tls)) for node, address in enumerate(addresses)]

    def send(self, node: int, number: int, request: bytes) -> Connection:
        if time.perf_counter() - self._connections[node].idle_since > _KEPT_SECONDS:
            self._connections[node].socket.close()
            self._connections[node] = Connection(node, _connect(self._addresses[node], self._tls))
        self._connections[node].send(number, time.perf_counter(), request)
        return self._connections[node]

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()


class Lanes:
    """A closed loop: ``at_once`` requests under way. Every answer must have this ``status``.

    Requests rotate over the nodes, as those of one ``quorumvault.Client`` do. If each lane rotated by itself, lanes whose answers
    came together would stay together: all requests would be at one node, while the two others had nothing to do.

    Call ``close`` at the end. ``cacert``: the CA certificate to trust, if the nodes use TLS.
    """

    def __init__(self, addresses: Sequence[str], at_once: int, status: int = 200, cacert: Path | None = None) -> None:
        tls = None if cacert is None else ssl.create_default_context(cafile=cacert)
        self._lanes = [Lane(addresses, tls) for _ in range(at_once)]
        self._nodes = itertools.cycle(range(len(addresses)))
        self._status = status

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()

    def drive(self, requests: Sequence[bytes]) -> Driven:
        """Sends all requests, each as soon as a lane is free. Raises LoadFailed at the first bad answer.

        Only connections with a pending answer are polled: a node may close the others at any time.
        """
        latencies, bodies = array("d", bytes(8 * len(requests))), [b""] * len(requests)
        waiting, busy = iter(enumerate(requests)), dict[int, tuple[Lane, Connection]]()

        def send_next(lane: Lane) -> None:
            for number, request in itertools.islice(waiting, 1):
                connection = lane.send(next(self._nodes), number, request)
                poll.register(connection.fileno(), connection.events)
                busy[connection.fileno()] = lane, connection

        with select.epoll() as poll:
            begun = time.perf_counter()
            try:
                for lane in self._lanes:
                    send_next(lane)
                while busy:
                    for fileno, events in poll.poll(_SILENCE_SECONDS) or _silence():
                        lane, connection = busy[fileno]
                        answer = connection.serve(events, poll)
                        if answer is not None:
                            latencies[connection.request] = connection.idle_since - connection.due
                            bodies[connection.request] = self._body(*answer)
                            del busy[fileno]
                            send_next(lane)
            except (ConnectionError, httptools.HttpParserError) as error:
                raise LoadFailed(str(error)) from None
            return Driven(time.perf_counter() - begun, latencies, bodies)

    def _body(self, status: int, body: bytes) -> bytes:
        if status != self._status:
            raise LoadFailed(f"status {status}: {body[:1000].decode(errors='replace')}")
        return body


def _silence() -> NoReturn:
    raise LoadFailed(f"no answer within {_SILENCE_SECONDS:g} s")


def _connect(address: str, tls: ssl.SSLContext | None = None) -> Socket:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), timeout=_SILENCE_SECONDS)
        return connection if tls is None else _Secured(tls.wrap_socket(connection, server_hostname=host))
    except OSError as error:
        raise LoadFailed(f"{address}: cannot be connected to: {error}") from None


class Socket(Protocol):
    """The part of a socket that this module uses."""

    def fileno(self) -> int: ...

    def setblocking(self, flag: bool, /) -> None: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def recv(self, count: int, /) -> bytes: ...

    def close(self) -> None: ...


class _Secured:
    """TLS with the interface of a socket. It returns all decrypted bytes at once, since epoll would not report them."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self.fileno, self.setblocking, self.close = tls.fileno, tls.setblocking, tls.close

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        self._tls.setsockopt(level, option, value)

    def send(self, data: bytes | memoryview, /) -> int:
        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv(self, count: int, /) -> bytes:
        received = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self._tls.recv(count):
                received.append(piece)
            return b"".join(received)  # the peer has ended the connection
        if not received:
            raise BlockingIOError
        return b"".join(received)
