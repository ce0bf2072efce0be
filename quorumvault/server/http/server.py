"""The HTTP server: uvicorn inside a node's own event loop, without its handling of signals.

uvicorn closes its listener at the first SIGTERM and exits with 143. A node must drain first (admission.py), and exits by itself.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.errors import ConfigError, Unavailable
from quorumvault.server.http.protocol import Connection, Shared
from quorumvault.server.http.secured import Secured
from quorumvault.server.telemetry.connection_refusals import HttpRefusals, Refusal

#: Connections that may wait to be accepted, and the seconds that an idle one is kept for its client's next request.
_BACKLOG = 1024
_KEEP_ALIVE = 75


def listening_socket(where: Path, key: str, address: Address) -> socket.socket:
    """Return a bound TCP socket. Raises ConfigError if the address cannot be bound; Unavailable if that may change by itself."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        kind = Unavailable if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else ConfigError
        raise kind(where, key, f"cannot listen on {address}: {error.strerror}") from None
    return listener


class HttpServer:
    """Serves one application on one socket."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        limits: Limits,
        timeouts: Timeouts,
        crowded: ASGIApp | None = None,
        count: Callable[[Refusal], None] = lambda refusal: None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """``crowded`` serves connections that have no room; ``count`` is called for each that is refused or ended.

        ``tls`` returns what the next connection is secured with; None: plain HTTP.
        """
        shared = Shared(limits, timeouts, _KEEP_ALIVE, HttpRefusals(count), crowded)
        config = uvicorn.Config(
            app,
            http=partial(_connection if tls is None else partial(_secured, tls), shared),  # type: ignore[arg-type]  # it is only called
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(timeouts.drain)),
        )
        self._listener = listener
        self._server = _Server(config, shared)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listener]), name="http server")

    async def stop(self) -> None:
        """Close the listener, end the requests under way, and return when all connections are gone."""
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task


def _connection(shared: Shared, **of_uvicorn: Any) -> Connection:
    return Connection(shared, of_uvicorn)


def _secured(tls: Callable[[], ssl.SSLContext], shared: Shared, **of_uvicorn: Any) -> Secured:
    connection = Connection(shared, of_uvicorn)
    return Secured(tls(), connection, shared.sealed, partial(shared.refusals.add, Refusal.NO_TLS))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, shared: Shared) -> None:
        super().__init__(config)
        self._shared = shared

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls it ten times a second."""
        self._shared.connections.check(asyncio.get_running_loop().time())
        return await super().on_tick(counter)
