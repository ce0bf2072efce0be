"""One HTTP connection. It bounds the bytes and the work that a stranger without a key can cause.

asyncio hands a streaming protocol everything that has arrived, up to 256 KiB at once: 14,000 requests in one piece. This one is
a buffered one, which chooses the size of each read. uvicorn's protocol (requests.py) parses the bytes, in parts:

    BETWEEN  no byte of a request yet        small reads; each part ends at the first empty line, if not before. The parser takes
    HEAD     the head has begun              only CR LF as a line's end, so a head ends there, and so does a chunked body with its
    CHUNKED  a body of unknown length        trailers: no part contains the beginning of a second request
    SIZED    a body of a known length        large reads, up to that length

    socket --get_buffer--> one buffer for all --part--> Requests --> application
                 at most one read is held while: the previous answer is not written, or has not left
                                                 the application holds back (flow control)
                                                 other connections have their turn (turnstile.py)

While a read is held, nothing more is read. Deadlines are checked ten times a second (``check``), because timers would mean
starting and cancelling three for each request.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from quorumvault.config.limits import Limits, Timeouts
from quorumvault.server.http.answer import PIECE_BYTES
from quorumvault.server.http.connections import Connections, Room, client_address
from quorumvault.server.http.requests import Requests, Wire
from quorumvault.server.http.secured import READ_BYTES
from quorumvault.server.http.turnstile import BODY_BYTE, FRAMING_BYTE, PART, Turnstile
from quorumvault.server.telemetry.connection_refusals import HttpRefusals, Refusal

#: A read where heads, chunk headers and trailers are expected, and one of the rest of a body of known length.
SMALL_READ: Final = 4 * 1024
LARGE_READ: Final = 64 * 1024
_EMPTY_LINE: Final = b"\r\n\r\n"
#: The application answers a body that is late; its answer comes before the connection's end.
_GRACE_SECONDS: Final = 1.0


class Phase(Enum):
    """How much of the next request has arrived. The table is at the top of the module."""

    BETWEEN = "between"
    HEAD = "head"
    SIZED = "sized"
    CHUNKED = "chunked"


class Shared:
    """The state that all connections of one server share. ``keep_alive`` is in seconds."""

    def __init__(self, limits: Limits, timeouts: Timeouts, keep_alive: float, refusals: HttpRefusals, crowded: Any) -> None:
        loop = asyncio.get_running_loop()
        self.limits = limits
        self.timeouts = timeouts
        self.keep_alive = keep_alive
        self.refusals = refusals
        #: The application for connections without room, or None.
        self.crowded = crowded
        self.connections = Connections(limits, refusals)
        self.turnstile = Turnstile(loop.call_soon)
        #: Filled and emptied within one call from the loop.
        self.buffer = bytearray(LARGE_READ)
        #: Likewise, for bytes still wrapped in TLS.
        self.sealed = memoryview(bytearray(READ_BYTES))
        self.small, self.large = memoryview(self.buffer)[:SMALL_READ], memoryview(self.buffer)


class Connection(asyncio.BufferedProtocol):
    """Used on the event loop's thread. Implements connections.Member, turnstile.Waiter, requests.ConnectionCallbacks and
    scope.Connection."""

    def __init__(self, shared: Shared, of_uvicorn: Mapping[str, Any]) -> None:
        self._shared = shared
        self._of_uvicorn = of_uvicorn
        self._now = asyncio.get_running_loop().time
        self._phase = Phase.BETWEEN
        self.ended = False
        self.unsent_since: float | None = None
        self._due = self._now() + shared.timeouts.head
        self._send_due = math.inf
        self._held = b""
        self._held_back = False
        #: True while every request that has come has its answer.
        self._answered = True
        self._reading = True
        self._on_sent: list[Callable[[], None]] = []
        #: Bytes of the request that is arriving: of its head, of its body's framing, and of framing since the last byte of body.
        #: ``_missing`` is what is still to come of a body of known length, or may still come to be thrown away.
        self._head_bytes = self._framing_bytes = self._framing_run = self._missing = 0
        #: The last bytes of the previous part, because the empty line may lie across two parts.
        self._seam = b""

    @property
    def received(self) -> bool:
        """True once the whole current request has arrived: no byte of the next request is parsed before."""
        return self._phase is Phase.BETWEEN

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call back once, when all that was written so far has left the process or the connection is lost; at once if it has."""
        self._wire.flush()
        if self.unsent_since is None:
            callback()
        else:
            self._on_sent.append(callback)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        shared = self._shared
        self._transport = transport
        # The application must wait to write more until the kernel has taken everything.
        transport.set_write_buffer_limits(high=0)
        self._wire = Wire(transport, self)
        self._requests = Requests(self, self._wire, shared.limits.headers, self._of_uvicorn)
        self._room = shared.connections.admit(self, client_address(transport.get_extra_info("peername")))
        if self._room is Room.NONE:
            self.abort()
        elif self._room is Room.HEALTH and shared.crowded is not None:
            self._requests.app = shared.crowded

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.unsent_since = None
        self._held = b""
        self._shared.connections.leave(self)
        self._shared.turnstile.leave(self)
        self._requests.connection_lost(exc)
        self._sent()

    def get_buffer(self, sizehint: int) -> memoryview:
        shared = self._shared
        if self.ended:
            return shared.large
        if self._phase is Phase.SIZED and shared.turnstile.is_open:
            return shared.large[: self._missing]
        return shared.small

    def buffer_updated(self, nbytes: int) -> None:
        shared = self._shared
        if self.ended:
            self._throw_away(nbytes)
        elif self._held or not self._may_parse():
            self._held += shared.buffer[:nbytes]
        else:
            self._held = self._parse(shared.buffer, shared.large, nbytes)
        self._choose_reading()

    def pause_writing(self) -> None:
        self.unsent_since = self._now()
        # Bytes that were handed over at once have as much time as they would have in several pieces.
        pieces = math.ceil(self._transport.get_write_buffer_size() / PIECE_BYTES)
        self._send_due = self.unsent_since + pieces * self._shared.timeouts.send
        self._requests.pause_writing()

    def resume_writing(self) -> None:
        self.unsent_since = None
        self._requests.resume_writing()
        self._sent()
        self._go_on()

    # Called by the turnstile, and ten times a second.

    def on_turn(self) -> None:
        if self.ended:
            self._held_back = False
        elif self._held and self._may_parse():
            held = self._held
            self._held = self._parse(held, memoryview(held), len(held))
        self._choose_reading()

    def check(self, now: float) -> None:
        """End the connection if one of its deadlines is over."""
        if self.unsent_since is not None and now > self._send_due:
            self._shared.refusals.add(Refusal.UNREAD)
            self.abort()
        elif now > self._due:
            was_idle = self._phase is Phase.BETWEEN and self._requests.cycle is not None
            if not self.ended and not was_idle:
                self._shared.refusals.add(Refusal.LATE)
            self.abort()

    def abort(self) -> None:
        self.ended = True
        self._transport.abort()
        if not self._answered:
            self._requests.give_up()

    # Called by uvicorn's protocol.

    def on_head(self, length: int | None) -> bool:
        shared = self._shared
        self._due = self._now() + shared.timeouts.body + _GRACE_SECONDS
        shared.connections.begin(self)
        shared.turnstile.requests += 1
        self._answered = False
        if length is None:
            self._phase = Phase.CHUNKED
        else:
            self._phase, self._missing = Phase.SIZED, length
        return self._room is Room.ALL and (length is None or length <= shared.limits.body_bytes)

    def on_message_end(self) -> None:
        self._phase = Phase.BETWEEN
        self._due = self._now() + self._shared.keep_alive if self._answered else math.inf

    def on_answered(self) -> None:
        self._answered = True
        self._shared.connections.rest(self)
        if self._phase is Phase.BETWEEN:
            self._due = self._now() + self._shared.keep_alive
        self._go_on()

    def hold_back(self, held_back: bool) -> None:
        self._held_back = held_back
        self._go_on()

    def refuse(self, why: str) -> None:
        self._shared.refusals.add(Refusal.MALFORMED)
        if not self._answered:
            if self._requests.cycle.response_started:
                self.abort()  # its answer is half written
                return
            self._requests.give_up()
        self._requests.answer_malformed(why)

    def close(self) -> None:
        """Close once all has left. Bytes that come after the last answer are thrown away for a while: a socket that is closed
        over unread bytes sends a reset, which takes the answer away from a client that has not read it yet."""
        if self.ended:
            return
        self._wire.flush()
        self.ended = True
        if self._transport.is_closing():
            return
        if self._phase is Phase.BETWEEN and not self._held:
            self._transport.close()
            return
        self._held, self._held_back = b"", False
        self._missing = self._shared.limits.body_bytes
        self._due = self._now() + self._shared.timeouts.send
        self._transport.write_eof()
        self._choose_reading()

    def shut_down(self) -> None:
        if self._answered:
            self.ended = True
            self._transport.close()
        else:
            self._requests.cycle.keep_alive = False

    # Reading and parsing.

    def _go_on(self) -> None:
        """Parse the held bytes, or read more, unless something still prevents it."""
        if self._held:
            self._shared.turnstile.wait(self)
        else:
            self._choose_reading()

    def _choose_reading(self) -> None:
        wanted = not self._held and not self._held_back
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _may_parse(self) -> bool:
        """Return whether the next part may be parsed now. If only other connections prevent it, ``on_turn`` is called later."""
        if self.ended or self._held_back:
            return False
        if self._phase is Phase.BETWEEN and (self.unsent_since is not None or not self._answered):
            return False
        return self._shared.turnstile.admit(self)

    def _parse(self, data: bytes | bytearray, view: memoryview, end: int) -> bytes:
        """Parse up to ``end``, or until something prevents it. ``view`` is a view of ``data``. Returns the rest."""
        start = 0
        while start < end and not self.ended:
            if start and not self._may_parse():
                return bytes(view[start:end])
            stop = self._part_end(data, start, end)
            self._feed(view[start:stop])
            start = stop
        return b""

    def _part_end(self, data: bytes | bytearray, start: int, end: int) -> int:
        if self._phase is Phase.SIZED:
            return min(end, start + self._missing)
        if self._seam:
            seam = self._seam + data[start : min(end, start + 3)]
            at = seam.find(_EMPTY_LINE)
            if at >= 0:
                return start + at + len(_EMPTY_LINE) - len(self._seam)
        at = data.find(_EMPTY_LINE, start, end)
        return end if at < 0 else at + len(_EMPTY_LINE)

    def _feed(self, part: memoryview) -> None:
        phase, length, turnstile = self._phase, len(part), self._shared.turnstile
        turnstile.work += PART
        if phase is Phase.SIZED:
            turnstile.work += length * BODY_BYTE
            self._missing -= length
            self._requests.feed(part)
            return
        turnstile.work += length * FRAMING_BYTE
        if phase is Phase.CHUNKED:
            body_bytes = self._requests.body_bytes
            self._requests.feed(part)
            self._check_chunks(length, self._requests.body_bytes - body_bytes)
        else:
            if phase is Phase.BETWEEN:
                self._begin()
            self._head_bytes += length
            if self._head_bytes > self._shared.limits.head_bytes:
                self.refuse(f"The request line and headers take more than {self._shared.limits.head_bytes} bytes.")
                return
            self._requests.feed(part)
        self._seam = (self._seam + bytes(part[-3:]))[-3:] if self._phase in (Phase.HEAD, phase) else b""

    def _begin(self) -> None:
        self._phase = Phase.HEAD
        self._due = self._now() + self._shared.timeouts.head
        self._head_bytes = self._framing_bytes = self._framing_run = 0
        self._seam = b""

    def _check_chunks(self, length: int, of_body: int) -> None:
        """Bound the bytes that are neither head nor body: chunk headers with their extensions, and trailers."""
        limits, body_bytes = self._shared.limits, self._requests.body_bytes
        self._framing_bytes += length - of_body
        self._framing_run = 0 if of_body else self._framing_run + length
        if self.ended or self._phase is not Phase.CHUNKED:
            return
        if self._framing_run > limits.head_bytes or self._framing_bytes > limits.head_bytes + body_bytes:
            self.refuse("The body's chunk headers, their extensions, or its trailers take more bytes than they may.")
        elif body_bytes > limits.body_bytes and self._answered:
            self.close()

    def _throw_away(self, count: int) -> None:
        self._missing -= count
        self._shared.turnstile.work += PART + count * BODY_BYTE
        if self._missing <= 0:
            self.abort()
        else:
            self._held_back = not self._shared.turnstile.admit(self)

    def _sent(self) -> None:
        callbacks, self._on_sent = self._on_sent, []
        for callback in callbacks:
            callback()
