"""Connections of the blocking client on which no read, write or handshake outlasts the Deadline of the exchange in hand.

httpx2 gives a stream no more than a timeout for each operation, so the Deadline comes by a context variable: an exchange runs in
one thread from its beginning to its end, and each thread has its own.
"""

import contextlib
import ssl
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from quorumvault.client.deadline import Deadline

_deadline: ContextVar[Deadline | None] = ContextVar("quorumvault_deadline", default=None)


@contextlib.contextmanager
def bounded(deadline: Deadline) -> Iterator[None]:
    """Exchanges of this thread keep to the deadline in the block."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def _left(timeout: float | None, late: type[httpcore2.TimeoutException]) -> float | None:
    """Returns the timeout, or the seconds until the deadline if these are fewer. Raises ``late`` once it has passed."""
    deadline = _deadline.get()
    if deadline is None:
        return timeout
    left = deadline.left()
    if left <= 0:
        raise late("the deadline has passed")
    return left if timeout is None else min(timeout, left)


class BoundTransport(httpx2.HTTPTransport):
    """httpx2's own, on connections that keep to the deadline."""

    def __init__(self, context: ssl.SSLContext, limits: httpx2.Limits) -> None:
        super().__init__(verify=context, trust_env=False, limits=limits)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(),
        )


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        bound = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, bound, local_address, socket_options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Not the library's loop, which gives each piece that the other end takes the whole timeout."""
        sock, rest = self.get_extra_info("socket"), memoryview(buffer)
        try:
            while rest:
                sock.settimeout(_left(timeout, httpcore2.WriteTimeout))
                rest = rest[sock.send(rest) :]
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(error) from error
        except OSError as error:
            raise httpcore2.WriteError(error) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore2.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
