"""One connection between two nodes, as either end sees it: bytes in, messages out. The ends differ in link.py and server.py.

    connected -> handshake (handshake.py) -> greetings -> claim (claims.py) -> open: requests, replies, pings, pongs -> over

``over`` is entered once, at once, and for one reason, which is the hook ``ended``; the socket may take a moment more to close.
Until the greeting of the other side is there one deadline holds for all of it; then the other side has to be heard in time. A
claim may have to wait until an older connection has been silent for too long, so the dialler's deadline allows for that.

Messages that are sent during one turn of the event loop, or while the transport does not take more, leave as one frame.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

import msgspec

from quorumvault.config.cluster import Limits, Timeouts
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import (
    ENVELOPE_OVERHEAD,
    FRAME_OVERHEAD,
    Envelope,
    FrameError,
    FrameReader,
    FrameWriter,
    Kind,
)
from quorumvault.server.peers.handshake import ClusterSecret, Handshake, HandshakeError, Session

DecodedT = TypeVar("DecodedT")

#: The reason for which a node that stops ends its connections.
STOPPING: Final = "this node stops"
_TRAFFIC = (Kind.REQUEST, Kind.REPLY, Kind.NO_REPLY)
#: A frame up to this size is cheaper to copy than to write in two pieces.
_JOINED_BYTES: Final = 16 << 10
#: Of what another node gives as its reason: enough for a sentence or two in a log.
_REASON_CHARS = 400


@dataclass(frozen=True, slots=True)
class LocalNode:
    """What all connections of this node have in common. ``random_bytes(n)`` makes nonces: os.urandom, or a test's own.

    ``on_taken(reason)`` is called when another node says that this one's name is another process's, which lives;
    ``on_facts`` whenever one has said something of itself.
    """

    secret: ClusterSecret = field(repr=False)
    facts: Callable[[], NodeFacts] = field(repr=False)
    claims: Claims = field(repr=False)
    on_taken: Callable[[str], None] = field(repr=False)
    random_bytes: Callable[[int], bytes] = field(repr=False)
    limits: Limits
    timeouts: Timeouts
    on_facts: Callable[[NodeFacts], None] = field(default=lambda facts: None, repr=False)


def decoded(decode: Callable[[bytes | memoryview], DecodedT], body: bytes | memoryview) -> DecodedT:
    """``decode(body)``; a body that is not what it should be is a FrameError, and ends the connection.

    msgspec raises ValueError for that, and RecursionError for what is nested deeper than its stack, in members that nobody knows.
    """
    try:
        return decode(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a message that cannot be read ({error}): do both nodes run the same release?") from None


def _decode_text(body: bytes | memoryview) -> str:
    return msgspec.msgpack.decode(body, type=str)


#: Seconds by which a timer may fire late before that says something about this process.
_LATE = 0.2


class Connection(asyncio.Protocol, ABC):
    """One end. Subclasses say which messages besides the common ones they take, and what follows from the transitions."""

    def __init__(self, local: LocalNode, handshake: Handshake, *, expected: Collection[str]) -> None:
        """``expected``: names that the node at the other end may have."""
        self._loop = asyncio.get_running_loop()
        self._local = local
        self._handshake = handshake
        self._expected = expected
        self._deadline: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._set_deadline(local.timeouts.handshake, self._not_open_in_time)
        self._heard = 0.0
        self._pings = 0
        self._greeting_came = False
        self._transport: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._writer: FrameWriter | None = None
        self._queue: deque[Envelope] = deque()
        self._queued_bytes = 0
        self._flush_due = False
        self._paused = False
        #: The host at the other end.
        self.remote = "an unknown address"
        #: Pings that were answered.
        self.pongs = 0
        #: The other side is a node, and has not said yet what it thinks of this one.
        self.undecided = False
        #: What the other side said of itself last; None until the connection is open.
        self.facts: NodeFacts | None = None
        #: Why it is over, if it is.
        self.reason: str | None = None
        #: Set when the socket is closed, or will not be opened.
        self.closed = asyncio.Event()

    # What the ends do differently.

    def secured(self) -> None:
        """Both sides have proved themselves; frames can be sent."""

    @abstractmethod
    def greeted(self, facts: NodeFacts) -> None:
        """The other side may use this connection, which is open from now on."""

    @abstractmethod
    def received(self, envelope: Envelope) -> None:
        """A request, a reply, or the word that there is none, on an open connection. FrameError if this end is not to get it."""

    def regulate(self) -> None:
        """What waits to be sent went out, or did not. An end that wants to hold the other back does it here."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """The connection is over; called once. What is still in the queue never left."""

    # Sending.

    def send(self, kind: Kind, correlation: int, body: bytes) -> None:
        """Puts a message into the queue; it leaves with the others of this turn of the loop."""
        if self.reason is not None:
            return
        self._queue.append(Envelope(kind, correlation, body))
        self._queued_bytes += len(body) + ENVELOPE_OVERHEAD
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    @property
    def under_way(self) -> bool:
        """Whether there is a socket, and the connection not over."""
        return self._transport is not None and self.reason is None

    def fits(self, body: bytes) -> bool:
        """Whether a message with this body is small enough for a frame."""
        return len(body) + ENVELOPE_OVERHEAD + FRAME_OVERHEAD <= self._local.limits.frame_bytes

    @property
    def unsent_bytes(self) -> int:
        """In the queue, and in the transport's buffer."""
        return self._queued_bytes + (0 if self._transport is None else self._transport.get_write_buffer_size())

    def unsent(self, kind: Kind) -> set[int]:
        """Correlation ids of the messages of a kind that are still in the queue."""
        return {envelope.correlation for envelope in self._queue if envelope.kind == kind}

    def ping(self) -> int:
        """Tells this node's facts, and asks for the other side's. The ping's number: see ``pongs``."""
        self._pings += 1
        self.send(Kind.PING, 0, saying.encode(self._local.facts()))
        return self._pings

    def send_greeting(self, to: str) -> None:
        self.send(Kind.GREETING, 0, saying.encode(Greeting(to, self._local.facts())))

    def _flush(self) -> None:
        self._flush_due = False
        if self._writer is None or self._transport is None:
            return
        while self._queue and not self._paused and self.reason is None:
            self._write(self._writer.frame(self._next_batch()))
        self.regulate()

    def _write(self, frame: Sequence[bytes]) -> None:
        """Small frames in one piece: each piece may be a call into the kernel of its own.

        Not by writelines: that of asyncio tells nobody to pause, up to Python 3.12.8 and 3.13.1, nor later to resume.
        """
        assert self._transport is not None  # noqa: S101 - _flush has looked
        if sum(map(len, frame)) <= _JOINED_BYTES:
            self._transport.write(b"".join(frame))
        else:
            for piece in frame:
                self._transport.write(piece)

    def _next_batch(self) -> list[Envelope]:
        """The messages of the next frame: at least one, and more as long as they are small together."""
        batch: list[Envelope] = []
        size = 0
        while self._queue:
            size_of_next = len(self._queue[0].body) + ENVELOPE_OVERHEAD
            if batch and size + size_of_next > self._local.limits.coalesce_bytes:
                break
            batch.append(self._queue.popleft())
            size += size_of_next
        self._queued_bytes -= size
        return batch

    # Ending.

    def fail(self, reason: str) -> None:
        """Ends the connection at once; what was not sent is dropped."""
        self._end(reason)
        if self._transport is None:
            self.closed.set()
        else:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """Ends the connection; what was sent before still goes out, if the other side takes it before the deadline."""
        if self.reason is not None:
            return
        self._paused = False  # whatever waits is the transport's now
        self._flush()
        self._end(reason)
        if self._transport is None:
            self.closed.set()
        else:
            self._transport.close()
            self._set_deadline(self._local.timeouts.handshake, self._transport.abort)

    def _end(self, reason: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.reason is None:
            self.reason = reason
            self.ended(reason)
            self._local.claims.release(self)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if peername := transport.get_extra_info("peername"):
            self.remote = peername[0]
        if self.reason is not None:
            self._transport.abort()
            return
        if opening := self._handshake.start():
            self._transport.write(opening)

    def data_received(self, data: bytes) -> None:
        if self.reason is not None:
            return
        self._heard = self._loop.time()
        try:
            if self._reader is None:
                data = self._shake_hands(data)
            if self._reader is not None:
                self._take(self._reader.feed(data))
        except (HandshakeError, FrameError) as error:
            self.fail(str(error))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def eof_received(self) -> None:
        # At once: left to itself the transport would first send what it has, to one that has gone.
        self.fail(self._why_lost(None))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(self._why_lost(error))
        self.closed.set()

    def _why_lost(self, error: Exception | None) -> str:
        if self._reader is None:
            return "closed by the other side before it proved itself: have both the same cluster secret, and is it its peer port?"
        if error is None:
            return "closed by the other side"
        # Other errors than the network's are slips in this process; their words may have in them what no log may have.
        return f"the connection broke: {error if isinstance(error, OSError) else type(error).__name__}"

    # Receiving.

    def _shake_hands(self, data: bytes) -> bytes:
        """Takes the handshake a step on; returns the bytes that follow it."""
        step = self._handshake.receive(data)
        if step.send and self._transport is not None:
            self._transport.write(step.send)
        if step.session is not None:
            self._secure(step.session)
        return step.rest

    def _secure(self, session: Session) -> None:
        self._writer = FrameWriter(session.sending)
        self._reader = FrameReader(session.receiving, self._local.limits.frame_bytes)
        self.secured()

    def _take(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if self.facts is not None and envelope.kind in _TRAFFIC:
                self.received(envelope)
            else:
                self._take_common(envelope)
            if self.reason is not None:
                return

    def _take_common(self, envelope: Envelope) -> None:
        self.undecided = False
        if envelope.kind == Kind.REFUSAL:
            reason = decoded(_decode_text, envelope.body)
            self.fail(f"refused by the other side: {reason[:_REASON_CHARS]!r}")
        elif envelope.kind == Kind.TAKEN:
            reason = decoded(_decode_text, envelope.body)[:_REASON_CHARS]
            self._local.on_taken(reason)
            self.fail(reason)
        elif envelope.kind == Kind.GREETING and not self._greeting_came:
            self._greet(envelope)
        elif envelope.kind == Kind.PING and self.facts is not None:
            self.facts = self._news(self.facts, decoded(saying.decode_facts, envelope.body))
            self.send(Kind.PONG, 0, saying.encode(self._local.facts()))
        elif envelope.kind == Kind.PONG and self.facts is not None and self.pongs < self._pings:
            self.facts = self._news(self.facts, decoded(saying.decode_facts, envelope.body))
            self.pongs += 1
            self._local.claims.answered(self)
        else:
            raise FrameError(f"a message of kind {envelope.kind} out of turn: do both nodes run the same release?")

    def _greet(self, envelope: Envelope) -> None:
        self._greeting_came = True
        greeting = decoded(saying.decode_greeting, envelope.body)
        refusal = saying.refusal(self._local.facts(), greeting, self._expected)
        if refusal is not None:
            self._refuse(Kind.REFUSAL, refusal)
            return
        self._set_deadline(self._local.timeouts.silence, self._listen_for_life)
        self._local.claims.claim(self, greeting.facts)

    def _refuse(self, kind: Kind, reason: str) -> None:
        self.send(kind, 0, msgspec.msgpack.encode(reason))
        self.close(f"refused: {reason}")

    # What the claims call.

    def welcome(self, facts: NodeFacts) -> None:
        # What it says is heard first: it may remember of this node's disk what forbids it to vote (healing/remembering.py).
        self._local.on_facts(facts)
        self.facts = facts
        self.greeted(facts)

    def turn_away(self, reason: str) -> None:
        self._refuse(Kind.TAKEN, reason)

    def _news(self, known: NodeFacts, told: NodeFacts) -> NodeFacts:
        if (told.node, told.disk, told.boot) != (known.node, known.disk, known.boot):
            raise FrameError("a node that turned into another one: it has to greet anew")
        self._local.on_facts(told)
        return told

    def await_greeting(self) -> None:
        """The handshake is over in time. From here the other side may have to wait for its older connections (claims.py)."""
        timeouts = self._local.timeouts
        self.undecided = True
        self._set_deadline(timeouts.handshake + timeouts.silence, self._not_open_in_time)

    def _set_deadline(self, seconds: float, on_expiry: Callable[[], None]) -> None:
        """Instead of the one that there is. ``_due`` is when it expires, which not every loop's handles can tell."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._due = self._loop.time() + seconds
        self._deadline = self._loop.call_later(seconds, on_expiry)

    def _not_open_in_time(self) -> None:
        self.fail(f"the handshake took more than {self._local.timeouts.handshake:g} s: does the other process hang?")

    def _listen_for_life(self) -> None:
        silence = self._local.timeouts.silence
        now = self._loop.time()
        left = self._heard + silence - now
        if left > 0:
            self._set_deadline(left, self._listen_for_life)
        elif now - self._due > _LATE:
            # This loop itself was held up. What the other side said meanwhile is read in the turn that follows.
            self._set_deadline(_LATE, self._listen_for_life)
        else:
            self.fail(f"nothing was heard for {silence:g} s: the other process hangs, or the network between is cut")
