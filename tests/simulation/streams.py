"""TCP between simulated hosts: streams that deliver in order or not at all, and the asyncio interface for the real links.

    a segment    has its own delay, and waits for earlier segments; a lost segment is sent again, and arrives later
    a cut wire   holds what is sent until it is mended; it loses resets, which leaves the other end half-open
    a lost path  a firewall has forgotten the connection: nothing arrives over it any more, and nobody is told
    a dead end   answers later segments with a reset, if its host has power
    a stopped    process reads nothing; its kernel accepts connections, and keeps what arrives
    a dial       reaches any process that listens under the name; attempts may overtake each other

There is no TLS: ``Unsecured`` stands in its place, and each end says who it is.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from enum import Enum
from random import Random
from typing import Any, Final

from tests.simulation.network import Network, Wire
from tests.simulation.timeline import Schedule, Timeline

#: The port of every listener; nothing depends on the number.
PORT: Final = 1
#: Seconds after which a lost segment is first sent again, and how often a segment may get lost.
_AGAIN, _LOSSES = 0.2, 3
#: The share of writes that are sent as two segments.
_CUT_IN_TWO: Final = 0.05
#: The share of connections of a dead process that are reset instead of ended.
_RESET: Final = 0.3

Factory = Callable[[], asyncio.Protocol]


class Segment(Enum):
    DATA = "data"
    END = "end"
    RESET = "reset"


class StreamNetwork(Network):
    """``window``: bytes of one direction that kernels hold; ``high``: bytes beyond the window at which a writer has to pause."""

    window, high = 65_536, 65_536

    def __init__(self, timeline: Timeline, rng: Random) -> None:
        super().__init__(timeline, rng)
        #: Nodes whose host has no power.
        self.dark: set[str] = set()
        #: The ends of connections that at least one end may still use.
        self.ends: dict[End, None] = {}
        self._listeners: dict[Loop, Factory] = {}

    def listen(self, loop: Loop, factory: Factory) -> None:
        self._listeners[loop] = factory

    def listen_no_more(self, loop: Loop) -> None:
        self._listeners.pop(loop, None)

    def has_cut(self, wire: Wire) -> bool:
        return wire in self._cuts

    def trip(self) -> float:
        """Seconds that a segment takes."""
        seconds, again = self.delay(), _AGAIN
        for _ in range(_LOSSES):
            if not self.lose or self.rng.random() >= self.lose:
                break
            seconds, again = seconds + again, 2 * again
        return seconds

    def _mend(self, wire: Wire) -> None:
        super()._mend(wire)
        for end in list(self.ends):
            if end.wire == wire:
                end.send_held()

    def between(self, one: str, other: str) -> Iterator[End]:
        """Both ends of each connection between two nodes."""
        return (end for end in list(self.ends) if set(end.wire) == {one, other})

    def of(self, loop: Loop) -> Iterator[End]:
        return (end for end in self.ends if end.loop is loop)

    def died(self, loop: Loop, *, silently: bool) -> None:
        """The process is dead: its kernel ends its connections, unless the host has lost power."""
        self.listen_no_more(loop)
        for end in list(self.of(loop)):
            end.let_go(None if silently else Segment.RESET if self.rng.random() < _RESET else Segment.END)

    def dial(self, loop: Loop, to: str) -> asyncio.Future[End]:
        found = loop.create_future()
        self._knock(loop, to, found, _AGAIN)
        return found

    def _knock(self, loop: Loop, to: str, found: asyncio.Future[End], again: float) -> None:
        if found.done() or not loop.alive:
            return
        now, unreachable = self.timeline.now, to in self.dark or self.has_cut((loop.host, to)) or self.has_cut((to, loop.host))
        if unreachable:
            self.timeline.at(now + again, None, self._knock, loop, to, found, 2 * again)
        else:
            self.timeline.at(now + self.trip(), None, self._accept, loop, to, found)

    def _accept(self, loop: Loop, to: str, found: asyncio.Future[End]) -> None:
        """The host ``to`` accepts the connection, or refuses it if nobody listens there."""
        at = self.timeline.now + self.trip()
        listeners = [other for other in self._listeners if other.host == to]
        if not listeners:
            self.timeline.at(at, loop, _refuse, found)
        elif loop.alive:
            there = self.rng.choice(listeners)
            mine, theirs = End(self, loop, to), End(self, there, loop.host)
            mine.other, theirs.other = theirs, mine
            self.ends |= {mine: None, theirs: None}
            self.timeline.at(self.timeline.now, there, theirs.attach_to, self._listeners[there])
            self.timeline.at(at, loop, _connect, found, mine)


def _refuse(found: asyncio.Future[End]) -> None:
    if not found.done():
        found.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))


def _connect(found: asyncio.Future[End], mine: End) -> None:
    if found.done():
        mine.abort()
    else:
        found.set_result(mine)


class End(asyncio.Transport):
    """One end of a connection: the kernel's part, and asyncio's transport over it. ``wire``: from this host, to which host."""

    other: End

    def __init__(self, network: StreamNetwork, loop: Loop, remote: str) -> None:
        super().__init__()
        self.loop = loop
        self.wire = loop.host, remote
        self.protocol: asyncio.Protocol | None = None
        #: Whether the kernel still has this end, and whether its segments can get anywhere.
        self.open, self.has_path = True, True
        self._network = network
        self._arrives = 0.0
        self._held: list[tuple[Segment, bytes]] = []
        self._received: deque[tuple[Segment, bytes]] = deque()
        #: Bytes that were written and that the other side's process has not read.
        self._unread = 0
        self._reads, self._told_to_pause, self._closing = True, False, False

    # The kernel's part.

    def _send(self, segment: Segment, data: bytes = b"") -> None:
        network = self._network
        if not self.has_path:
            return
        if network.has_cut(self.wire):
            if segment is not Segment.RESET:
                self._held.append((segment, data))
            return
        self._arrives = max(self._arrives, network.timeline.now + network.trip())
        network.timeline.at(self._arrives, None, self.other.arrive, segment, data)

    def send_held(self) -> None:
        held, self._held = self._held, []
        for segment, data in held:
            self._send(segment, data)

    def arrive(self, segment: Segment, data: bytes) -> None:
        if self.open:
            self._received.append((segment, data))
            if self.protocol is not None:
                self._network.timeline.at(self._network.timeline.now, self.loop, self._read)
        elif segment is not Segment.RESET and self.wire[0] not in self._network.dark:
            self._send(Segment.RESET)

    def let_go(self, last: Segment | None) -> None:
        """The kernel lets this end go. The other side is told by the segment ``last``, if any."""
        if self.open:
            self.open = False
            self._received.clear()
            if last is not None:
                self._send(last)
            if not self.other.open:
                self._network.ends.pop(self, None)
                self._network.ends.pop(self.other, None)

    def reset(self) -> None:
        """A host on the path sends this end a reset."""
        self.arrive(Segment.RESET, b"")

    # In the end's process.

    def attach_to(self, factory: Factory) -> asyncio.Protocol:
        self.protocol = factory()
        self.protocol.connection_made(self)
        self.loop.call_soon(self._read)
        return self.protocol

    def _read(self) -> None:
        """Passes arrived segments to the protocol, as far as it reads."""
        if self._closing and any(segment is Segment.RESET for segment, _ in self._received):
            self._lose(None, None)
        while self._received and self._reads and not self._closing:
            assert self.protocol is not None
            segment, data = self._received.popleft()
            match segment:
                case Segment.DATA:
                    self.other.was_read(len(data))
                    self.protocol.data_received(data)
                case Segment.END:
                    self.protocol.eof_received()
                    self.close()
                case Segment.RESET:
                    self._lose(None, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def was_read(self, size: int) -> None:
        self._unread -= size
        if self._told_to_pause and self.get_write_buffer_size() <= self._network.high // 4:
            self.loop.call_soon(self._resume_writing)
        if self._closing and self.open and not self.get_write_buffer_size():
            self.loop.call_soon(self._finish)

    def _resume_writing(self) -> None:
        if self._told_to_pause and self.open and self.protocol is not None:
            self._told_to_pause = False
            self.protocol.resume_writing()

    def _lose(self, last: Segment | None, error: Exception | None) -> None:
        if self.open:
            self._closing = True
            self.let_go(last)
            if self.protocol is not None:
                self.loop.call_soon(self.protocol.connection_lost, error)

    def _finish(self) -> None:
        self._lose(Segment.END, None)

    # asyncio.Transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.open or self._closing:
            return
        whole, rng = bytes(data), self._network.rng
        at = rng.randrange(1, len(whole)) if len(whole) > 1 and rng.random() < _CUT_IN_TWO else len(whole)
        self._unread += len(whole)
        for piece in (whole[:at], whole[at:]):
            if piece:
                self._send(Segment.DATA, piece)
        if not self._told_to_pause and self.get_write_buffer_size() > self._network.high:
            assert self.protocol is not None
            self._told_to_pause = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return max(0, self._unread - self._network.window)

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True
        self.loop.call_soon(self._read)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.get_write_buffer_size():
                self._finish()

    def abort(self) -> None:
        self._lose(Segment.RESET if self._received else Segment.END, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.wire[1], PORT) if name == "peername" else default


class Listening:
    """What a loop returns for a port that it listens at; also stands for its only socket."""

    def __init__(self, network: StreamNetwork, loop: Loop) -> None:
        self.sockets = [self]
        self._network, self._loop = network, loop

    def getsockname(self) -> tuple[str, int]:
        return self._loop.host, PORT

    def close(self) -> None:
        self._network.listen_no_more(self._loop)

    async def wait_closed(self) -> None:
        """Returns at once."""


class Loop(Schedule):
    """A process's event loop with tasks and streams, on the host of the node ``host``."""

    def __init__(self, network: StreamNetwork, host: str) -> None:
        super().__init__(network.timeline)
        self.host = host
        self._network = network

    def create_task(self, coro: Coroutine[Any, Any, Any], **named: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, **named)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the task ends with its process
        task.add_done_callback(self._fail)
        return task

    def _fail(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._timeline.at(self._timeline.now, None, _raise, error)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:  # type: ignore[override]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    async def create_connection(  # type: ignore[override]
        self, factory: Factory, host: str, port: int, **_: object
    ) -> tuple[End, asyncio.Protocol]:
        found = self._network.dial(self, host)
        try:
            end = await found
        except asyncio.CancelledError:
            if found.done() and not found.cancelled():
                found.result().abort()
            raise
        return end, end.attach_to(factory)

    async def create_server(self, factory: Factory, *_: object, **__: object) -> Listening:  # type: ignore[override]
        self._network.listen(self, factory)
        return Listening(self._network, self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Does nothing: ``_fail`` raises the errors of tasks."""


def _raise(error: BaseException) -> None:
    raise error


class Unsecured:
    """Stands in for a TlsSession: each side first says who it is, and is believed. ``context`` is this side's name."""

    def __init__(self, context: str, *, server_side: bool) -> None:
        said = context.encode()
        self._unsent, self._heard = bytes([len(said)]) + said, b""
        self.established = False
        self.certificate: Mapping[str, Any] = {}

    def start(self) -> None:
        """Does nothing: the name is already waiting to be sent."""

    def take(self, data: bytes | memoryview) -> bytes:
        if self.established:
            return bytes(data)
        self._heard += data
        if len(self._heard) <= self._heard[0]:
            return b""
        end = 1 + self._heard[0]
        self.established = True
        self.certificate = {"subjectAltName": (("URI", self._heard[1:end].decode()),), "serialNumber": "01"}
        return self._heard[end:]

    def seal(self, data: bytes) -> bytes:
        return data

    def outgoing(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent
