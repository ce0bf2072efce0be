"""uvicorn's HTTP/1.1 protocol, with bounds on what a stranger without a key can make a node hold.

uvicorn bounds neither the connections nor the head of a request (its line and headers), nor how long either takes. Connections
share the process's file descriptors with LevelDB, which fails for good when it cannot open one.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quorumvault.config import Limits, Timeouts


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by ``bounded``, which gives it the limits."""

    limits: ClassVar[Limits]
    timeouts: ClassVar[Timeouts]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self.limits.head_bytes:
            self._head_arrived()
            self.send_400_response(f"The request line and headers take more than {self.limits.head_bytes} bytes.")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            # The rest of a body after its answer. uvicorn stops the clock of an idle connection when it comes, and starts none.
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_arrived()
        super().on_headers_complete()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeouts.head, self._head_too_late)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_late(self) -> None:
        self._head_timer = None
        self.transport.abort()


def bounded(limits: Limits, timeouts: Timeouts) -> type[BoundedProtocol]:
    """The protocol with these limits, as uvicorn takes it: a class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits, "timeouts": timeouts})
