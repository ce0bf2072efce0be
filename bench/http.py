"""A load client that costs little: requests are encoded beforehand, one thread waits on all sockets, answers are not parsed.

On a machine that the nodes share, each microsecond of the client is taken from what it measures; a general HTTP library would
need more of them than the nodes do. What is understood of HTTP/1.1 is what the nodes speak: keep-alive and Content-Length.
"""

from __future__ import annotations

import re
import select
import socket
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

#: Room for one answer: 10,000 tokens are below 1 MiB.
_ANSWER_BYTES = 2 << 20
#: Longer than a node itself takes to give up, with the deadlines that load.py gives it.
_SILENCE_SECONDS = 90.0
#: A node closes a connection that no request comes over (its deadlines ``head`` and keep-alive, 10 s and more). One that was idle
#: for this long is not used again, so that none is closed under a request.
_KEPT_SECONDS = 2.0
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class LoadFailed(Exception):
    """A node answered with another status than it had to, or not at all."""


def encode(path: str, key: str, body: bytes) -> bytes:
    """One request, ready to be sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True, repr=False)
class Driven:
    """``bodies`` of the answers and ``latencies`` in seconds, in the order of the requests; ``seconds`` for all of them."""

    seconds: float
    latencies: array[float]
    bodies: list[bytes]


class Lane:
    """One request at a time, to each of the nodes in turn, over a connection to each that stays open.

    ``status`` is what an answer has to have.
    """

    def __init__(self, addresses: Sequence[str], first: int, status: int) -> None:
        self._addresses = addresses
        self._status_line = f"HTTP/1.1 {status}".encode()
        self._sockets = [_connect(address) for address in addresses]
        self._idle_since = [time.perf_counter()] * len(addresses)
        self._node = first % len(addresses)
        self._buffer = bytearray(_ANSWER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._head_bytes = 0
        self._answer_bytes = 0
        self.request = -1
        self.sent_at = 0.0

    def fileno(self) -> int:
        """Of the connection that the answer to the last request comes from."""
        return self._sockets[self._node].fileno()

    def send(self, number: int, request: bytes) -> None:
        self._node = (self._node + 1) % len(self._sockets)
        self._filled = self._answer_bytes = 0
        self.request = number
        self.sent_at = time.perf_counter()
        if self.sent_at - self._idle_since[self._node] > _KEPT_SECONDS:
            self._sockets[self._node].close()
            self._sockets[self._node] = _connect(self._addresses[self._node])
        try:
            self._sockets[self._node].sendall(request)
        except TimeoutError:
            raise LoadFailed(f"a node did not read a request of {len(request)} bytes within {_SILENCE_SECONDS:g} s") from None

    def receive(self) -> bool:
        """Takes what has arrived. True if that completes the answer."""
        count = self._sockets[self._node].recv_into(self._view[self._filled :])
        if count == 0:
            raise LoadFailed("a node closed the connection")
        self._filled += count
        if not self._answer_bytes:
            self._read_head()
        if not 0 < self._answer_bytes <= self._filled:
            return False
        self._idle_since[self._node] = time.perf_counter()
        return True

    def body(self) -> bytes:
        return bytes(self._view[self._head_bytes : self._answer_bytes])

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            return
        if not self._buffer.startswith(self._status_line):
            raise LoadFailed(bytes(self._view[: min(self._filled, 1000)]).decode(errors="replace"))
        length = _CONTENT_LENGTH.search(self._buffer, 0, end)
        if length is None:
            raise LoadFailed("an answer without Content-Length")
        self._head_bytes = end + 4
        self._answer_bytes = self._head_bytes + int(length[1])
        if self._answer_bytes > _ANSWER_BYTES:
            raise LoadFailed(f"an answer of {self._answer_bytes} bytes")

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


class Lanes:
    """So many requests at once, spread over the nodes."""

    def __init__(self, addresses: Sequence[str], at_once: int, status: int = 200) -> None:
        self._lanes = [Lane(addresses, first, status) for first in range(at_once)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for lane in self._lanes:
            lane.close()

    def drive(self, requests: Sequence[bytes]) -> Driven:
        """Sends all requests, each as soon as a lane is free. Raises ``LoadFailed`` at the first bad answer."""
        latencies = array("d", bytes(8 * len(requests)))
        bodies = [b""] * len(requests)
        waiting = iter(enumerate(requests))
        with select.epoll() as poll:
            begun = time.perf_counter()
            busy = {lane.fileno(): lane for lane in self._lanes if _send_next(lane, waiting, poll)}
            while busy:
                ready = poll.poll(_SILENCE_SECONDS)
                if not ready:
                    raise LoadFailed(f"no answer within {_SILENCE_SECONDS:g} s")
                for fileno, _ in ready:
                    lane = busy[fileno]
                    if lane.receive():
                        latencies[lane.request] = time.perf_counter() - lane.sent_at
                        bodies[lane.request] = lane.body()
                        poll.unregister(fileno)
                        del busy[fileno]
                        if _send_next(lane, waiting, poll):
                            busy[lane.fileno()] = lane
            return Driven(time.perf_counter() - begun, latencies, bodies)


def _send_next(lane: Lane, waiting: enumerate[bytes], poll: select.epoll) -> bool:
    """Only connections that an answer is awaited from are polled: a node may close the others when it likes."""
    following = next(waiting, None)
    if following is None:
        return False
    lane.send(*following)
    poll.register(lane.fileno(), select.EPOLLIN)
    return True


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), timeout=_SILENCE_SECONDS)
    except OSError as error:
        raise LoadFailed(f"{address}: cannot be connected to: {error}") from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
