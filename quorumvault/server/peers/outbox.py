"""The messages that one connection has to send: they wait here until they leave as frames."""

import asyncio
from collections import deque
from collections.abc import Callable

from quorumvault.server.peers.frames import ENVELOPE_OVERHEAD, Envelope, Kind, frame
from quorumvault.server.tls import TlsSession


class Outbox:
    """Messages added during one turn of the event loop, or while the transport is paused, leave in one frame of at most
    ``coalesce_bytes``; a larger message has its own frame. ``flushed`` is called whenever messages left, or should have left.

    Invariant: ``_queued_bytes`` is the size of all envelopes in ``_queue``.
    """

    def __init__(self, coalesce_bytes: int, flushed: Callable[[], None]) -> None:
        self._coalesce_bytes = coalesce_bytes
        self._flushed = flushed
        self._queue: deque[Envelope] = deque()
        self._queued_bytes = 0
        self._flush_due = False
        self._paused = False
        self._session: TlsSession | None = None
        self._transport: asyncio.Transport | None = None

    def open(self, session: TlsSession, transport: asyncio.Transport) -> None:
        """Let messages leave from now on."""
        self._session, self._transport = session, transport

    def close(self) -> None:
        """Let nothing leave from now on."""
        self._session = None

    def put(self, envelope: Envelope) -> None:
        self._queue.append(envelope)
        self._queued_bytes += len(envelope.body) + ENVELOPE_OVERHEAD
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        """Hand everything to the transport, unless it pauses again."""
        self._paused = False
        self.flush()

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes that wait here and in the transport's buffer."""
        return self._queued_bytes + (0 if self._transport is None else self._transport.get_write_buffer_size())

    def unsent(self, kind: Kind) -> set[int]:
        """The correlation ids of the messages of this kind that have not left."""
        return {envelope.correlation for envelope in self._queue if envelope.kind == kind}

    def flush(self) -> None:
        self._flush_due = False
        if self._session is None or self._transport is None:
            return
        while self._queue and not self._paused and self._session is not None:
            self._transport.write(self._session.seal(frame(self._next_batch())))
        self._flushed()

    def _next_batch(self) -> list[Envelope]:
        """The messages of the next frame: at least one, and more as long as they fit together."""
        batch: list[Envelope] = []
        size = 0
        while self._queue:
            size_of_next = len(self._queue[0].body) + ENVELOPE_OVERHEAD
            if batch and size + size_of_next > self._coalesce_bytes:
                break
            batch.append(self._queue.popleft())
            size += size_of_next
        self._queued_bytes -= size
        return batch
