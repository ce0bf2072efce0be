"""A link: this node's connection to one other node, dialled again whenever it is lost.

Coordinators use a link as a Peer (protocol/peer.py). ``on_reply`` of each request is called exactly once: with the reply, or with
NoReply as soon as no reply can come. A request certainly did not leave (``sent=False``) if there was no connection, if a limit
was reached, or if the request was still in the outbox. Once the transport has it, nothing is certain (rule: unknown is an
outcome). After its round has given up a request, the request counts against the limits until it is answered or the connection
ends.

Rules kept here: unknown is an outcome.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Timeouts
from quorumvault.protocol.messages import AnyReply, Outgoing, decode_reply
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.peers.connection import STOPPING, UNTRUSTED, Connection, LocalNode, decoded
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.frames import Envelope, FrameError, Kind, fits

logger = logging.getLogger("quorumvault.peers")

_decode_bool = msgspec.msgpack.Decoder(bool).decode
_MOVED = "its address has changed"


def reconnect_wait(attempt: int, timeouts: Timeouts, rng: random.Random) -> float:
    """Returns the seconds before attempt 0, 1, …: exponential, full jitter (Brooker, "Exponential Backoff and Jitter", 2015)."""
    ceiling = min(timeouts.reconnect_last, timeouts.reconnect_first * 2.0 ** min(attempt, 63))
    return rng.uniform(0, ceiling)


@dataclass(eq=False)
class Link:
    """The link to the peer ``node`` at ``address``. ``on_change(link)`` is called whenever the link goes up or down.

    ``source`` is the host to bind before connecting; None leaves that to the kernel.
    """

    node: str
    address: Address
    local: LocalNode
    source: str | None
    rng: random.Random
    on_change: Callable[[Link], None]

    def __post_init__(self) -> None:
        #: Why the link is down; None while it is up, and before it was first dialled.
        self.last_error: str | None = None
        self._open: _Dialled | None = None
        self._facts: NodeFacts | None = None
        self._task: asyncio.Task[None] | None = None
        self._connection: _Dialled | None = None
        self._on_failure: Callable[[], None] | None = None

    @property
    def up(self) -> bool:
        return self._open is not None

    @property
    def facts(self) -> NodeFacts | None:
        """The facts that the peer told last, on this connection or an earlier one; None if it has told none."""
        return self._facts if self._open is None else self._open.facts

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        """See Peer.send. A peer of an older release gets no messages that it does not know."""
        connection, facts = self._open, self.facts
        understood = facts is not None and outgoing.request.since <= facts.protocol
        if connection is None or not understood or not connection.request(outgoing.wire, on_reply):
            on_reply(NoReply(sent=False))

    def start(self) -> None:
        """Begin to dial, on the running event loop. Call it once."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name=f"link to {self.node}")

    def move(self, address: Address) -> None:
        """Dial the peer at this address from now on. A connection to another address ends."""
        if address == self.address:
            return
        logger.info("%s is at %s from now on, and no more at %s", self.node, address, self.address)
        self.address = address
        if self._connection is not None:
            self._connection.fail(_MOVED)

    def forget_revoked(self) -> None:
        """The credentials of this node have changed: end the connection if the peer's certificate is revoked."""
        if self._connection is not None:
            self._connection.forget_revoked()

    def renew(self) -> bool:
        """Replace the connection if the credentials no longer allow it. Returns True if it was up: wait for the new one then.

        Requests under way on the old connection are still answered, for as long as a round may take.
        """
        connection = self._connection
        if connection is None or not connection.outdated:
            return False
        if self._open is None:
            connection.fail(UNTRUSTED)
            return False
        self._open.retire(UNTRUSTED)
        return True

    def dial_now(self, on_failure: Callable[[], None]) -> None:
        """Dial at once if the link is down. Calls ``on_failure`` if no one answers, or if the peer refuses this node.

        An attempt that has reached the other side's port goes on, since it can still be answered. If it breaks between the
        handshake and the peer's first message, that proves nothing, and the next attempt decides.
        """
        if self._task is None or self.up:
            return
        self._on_failure = on_failure
        connection = self._connection
        if connection is not None and not connection.under_way:
            self._connection = None
            connection.fail("dialled anew")
            self._task.cancel()
            self.start()

    async def close(self) -> None:
        """End the link. Every waiting request gets NoReply."""
        task, self._task = self._task, None
        if self._connection is not None:
            self._connection.fail(STOPPING)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_connected(self) -> None:
        timeouts, attempt = self.local.timeouts, 0
        while True:
            # A shorter connection does not count as a success: a node that is cut off each time must not dial at full speed.
            attempt = 0 if await self._connect() > timeouts.reconnect_last else attempt + 1
            await asyncio.sleep(reconnect_wait(attempt, timeouts, self.rng))

    async def _connect(self) -> float:
        """Dial, and wait until the connection ends. Returns the number of seconds for which it could carry requests."""
        connection = self._connection = _Dialled(self, self.local)
        try:
            async with asyncio.timeout(self.local.timeouts.handshake):
                await self._dial(connection)
        except OSError as error:  # also TimeoutError
            why = error.strerror or str(error) or "no answer in time"
            connection.fail(f"cannot connect to {self.address}: {why}: is the node running, and is its address right?")
            return 0.0
        await connection.closed.wait()
        return connection.open_seconds

    async def _dial(self, connection: _Dialled) -> None:
        """Connect to the first address of the peer that can be reached. Raises OSError."""
        loop, source = asyncio.get_running_loop(), None if self.source is None else (self.source, 0)
        # If cancelled, uvloop's create_connection continues its look-up, and then complains that no one heard it fail.
        found = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        failure = OSError("its name has no address")
        for family, _, _, _, address in found:
            try:
                await loop.create_connection(lambda: connection, *address[:2], family=family, local_addr=source)
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    def opened(self, connection: _Dialled, facts: NodeFacts) -> None:
        """Called by the connection once requests can be sent on it."""
        self._open, self.last_error, self._on_failure = connection, None, None
        logger.info("%s is up at %s: disk %s, version %s", self.node, self.address, facts.disk.hex(), facts.version)
        self.on_change(self)

    def ended(self, connection: _Dialled, reason: str) -> None:
        """Called by the connection when it ends, whether it was open or not. A reason is logged once, not at every attempt."""
        if connection is not self._connection:
            return
        was_up, news = self._open is connection, reason != self.last_error
        self._facts = self.facts
        self._open, self.last_error = None, reason
        if was_up or news:
            level = logging.INFO if reason in (STOPPING, _MOVED) else logging.WARNING
            logger.log(level, "%s is down, at %s: %s", self.node, self.address, reason)
        if news and connection.refused:
            self.local.on_refused(self.node, f"at {self.address}: {reason}")
        if was_up:
            self.on_change(self)
        elif self._on_failure is not None and not connection.undecided:
            on_failure, self._on_failure = self._on_failure, None
            on_failure()


class _Waiting(NamedTuple):
    """An unanswered request; ``size`` in bytes on the wire, which all stay in memory."""

    on_reply: OnReply
    size: int


class _Dialled(Connection):
    """The dialler's end of a connection: sends requests and pings, takes replies and pongs."""

    def __init__(self, link: Link, local: LocalNode) -> None:
        super().__init__(local, listening=False, expected=(link.node,))
        self._link = link
        self._waiting: dict[int, _Waiting] = {}
        self._waiting_bytes = 0
        self._last_id = 0
        self._next_tick: asyncio.TimerHandle | None = None
        self._last_tick = 0.0
        #: Why the connection takes no more requests; None while it does.
        self._retired: str | None = None
        self._opened_at: float | None = None
        self.open_seconds = 0.0

    def request(self, wire: bytes, on_reply: OnReply) -> bool:
        """Send a request. Returns False if the connection is retired or a limit is reached: ``on_reply`` is then not called."""
        limits = self._local.limits
        if (
            self._retired is not None
            or len(self._waiting) >= limits.peer_in_flight
            or self._waiting_bytes + len(wire) > limits.peer_queue_bytes
            or not fits(wire, limits.frame_bytes)
        ):
            return False
        self._last_id += 1
        self._waiting[self._last_id] = _Waiting(on_reply, len(wire))
        self._waiting_bytes += len(wire)
        self.send(Kind.REQUEST, self._last_id, wire)
        return True

    def retire(self, reason: str) -> None:
        """Take no more requests. The connection ends when those under way are answered, or when no round waits for them."""
        self._retired = reason
        self._loop.call_later(self._local.timeouts.round, partial(self.fail, reason))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._retired is not None and not self._waiting:
            self.fail(self._retired)

    @property
    def undecided(self) -> bool:
        """True if the other side is a node that has sent no message yet to accept or refuse this node."""
        return self._reader is not None and not self.answered

    def secured(self) -> None:
        self.await_greeting()
        self.send_greeting(self._link.node)
        self._last_tick = self._loop.time()
        self._tick()

    def greeted(self, facts: NodeFacts) -> None:
        self._opened_at = self._loop.time()
        self._link.opened(self, facts)
        self.ping()

    def received(self, envelope: Envelope) -> None:
        if envelope.kind == Kind.REPLY:
            reply: AnyReply | NoReply = decoded(decode_reply, envelope.body)
        elif envelope.kind == Kind.NO_REPLY:
            reply = NoReply(sent=decoded(_decode_bool, envelope.body))
        else:
            raise FrameError("a request, on a connection that this node dialled")
        waiting = self._waiting.pop(envelope.correlation, None)
        if waiting is None:
            raise FrameError("a reply to nothing that was asked")
        self._waiting_bytes -= waiting.size
        waiting.on_reply(reply)
        self._end_if_done()

    def ended(self, reason: str) -> None:
        if self._next_tick is not None:
            self._next_tick.cancel()
        if self._opened_at is not None:
            self.open_seconds = self._loop.time() - self._opened_at
        self._link.ended(self, reason)
        # Later, so that a callback that raises, or sends again at once, does not disturb the others.
        unsent = self._outbox.unsent(Kind.REQUEST)
        for correlation, waiting in self._waiting.items():
            self._loop.call_soon(waiting.on_reply, NoReply(sent=correlation not in unsent))
        self._waiting.clear()

    def _tick(self) -> None:
        now = self._loop.time()
        held_up, self._last_tick = now - self._last_tick, now
        if held_up >= self._local.timeouts.silence:
            # Bytes that came meanwhile are read as if they had just arrived, even if the other side has ended or restarted since.
            self.fail(f"this process was held up for {held_up:.1f} s, so that its peers may have given its name to another one")
            return
        if self.facts is not None:
            self.ping()
        self._next_tick = self._loop.call_later(self._local.timeouts.ping, self._tick)
