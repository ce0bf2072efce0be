"""The peer port: accepts other nodes' requests to this node's replica.

    strangers   connections that are not open yet: at most limits.peer_strangers; one more ends the oldest
    live        open connections, one for each node; a newer one of the same process replaces the older, which is half-open
                (claims.py decides about another process under that name)

Backpressure: while a connection has too many requests under way, or too many replies that the other side does not read, its
requests wait and the connection is not read. TCP then holds the other side back, whose own limits tell its coordinators. If this
lasts longer than ``timeouts.silence``, the connection ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec

from quorumvault.config.addresses import Address
from quorumvault.protocol.messages import AnyReply, AnyRequest, decode_request, encode
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.peers.connection import STOPPING, UNTRUSTED, Connection, LocalNode, decoded
from quorumvault.server.peers.connection_state import State
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.frames import Envelope, FrameError, Kind, fits
from quorumvault.server.peers.refusals import Refusals

logger = logging.getLogger("quorumvault.peers")

#: Submits a request to the replica. Called on the event loop, where it calls back once for each request, at once or later.
Submit = Callable[[AnyRequest, OnReply], None]


@dataclass(eq=False)
class PeerServer:
    """Listens at ``address`` for the nodes named ``others``. Port 0 means any free port; once listening, it has the real port."""

    address: Address
    local: LocalNode
    others: Collection[str]
    submit: Submit

    def __post_init__(self) -> None:
        self._listener: asyncio.Server | None = None
        self._strangers: dict[_Accepted, None] = {}
        self._live: dict[str, _Accepted] = {}
        self._refusals = Refusals(time.monotonic, partial(self.local.on_refused, None))

    @property
    def connected(self) -> Mapping[str, NodeFacts]:
        """The latest facts of the nodes with an open connection, by node."""
        return {node: connection.facts for node, connection in self._live.items() if connection.facts is not None}

    def tell(self) -> None:
        """This node's facts have changed: tell them to all connected nodes at once."""
        for connection in self._live.values():
            connection.ping()

    def forget_untrusted(self) -> None:
        """This node's credentials have changed: end the connections that they no longer allow."""
        for connection in [*self._strangers, *self._live.values()]:
            if connection.outdated:
                connection.fail(UNTRUSTED)
            else:
                connection.forget_revoked()

    async def start(self) -> None:
        """Start listening. Raises OSError if the address cannot be bound."""
        self._listener = await asyncio.get_running_loop().create_server(self._accept, self.address.host, self.address.port)
        self.address = Address(self.address.host, self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end all connections. Replies that the replica has given still go out."""
        if self._listener is not None:
            self._listener.close()
        connections = [*self._strangers, *self._live.values()]
        for connection in connections:
            connection.close(STOPPING)
        for connection in connections:
            await connection.closed.wait()
        if self._listener is not None:
            await self._listener.wait_closed()

    def _accept(self) -> _Accepted:
        if len(self._strangers) >= self.local.limits.peer_strangers:
            next(iter(self._strangers)).fail("too many connections at once that have not proved themselves")
        stranger = _Accepted(self, self.local, self.others, self.submit)
        self._strangers[stranger] = None
        return stranger

    # Called by connections.

    def opened(self, connection: _Accepted, facts: NodeFacts) -> None:
        del self._strangers[connection]
        self._refusals.forget(connection.remote)
        logger.info("%s connected, from %s: disk %s, version %s", facts.node, connection.remote, facts.disk.hex(), facts.version)
        older, self._live[facts.node] = self._live.get(facts.node), connection
        if older is not None:
            older.fail("replaced by a newer connection")

    def ended(self, connection: _Accepted, reason: str) -> None:
        if connection in self._strangers:
            del self._strangers[connection]
            if reason != STOPPING:
                self._refusals.add(connection.remote, reason)
        elif connection.facts is not None:
            node = connection.facts.node
            if self._live.get(node) is connection:
                del self._live[node]
            level = logging.INFO if reason == STOPPING else logging.WARNING
            logger.log(level, "%s, from %s, is no longer connected: %s", node, connection.remote, reason)


class _Waiting(NamedTuple):
    """A request that was read but not yet submitted to the replica; ``size`` in bytes on the wire."""

    correlation: int
    size: int
    request: AnyRequest


class _Accepted(Connection):
    """The listener's end of a connection: takes requests and pings, sends replies and pongs."""

    def __init__(self, server: PeerServer, local: LocalNode, others: Collection[str], submit: Submit) -> None:
        super().__init__(local, listening=True, expected=others)
        self._server = server
        self._submit = submit
        self._waiting: deque[_Waiting] = deque()
        self._taking_up = False
        self._under_way = 0
        self._under_way_bytes = 0
        self._reading = True

    def greeted(self, facts: NodeFacts) -> None:
        self._server.opened(self, facts)
        self.send_greeting(facts.node)

    def received(self, envelope: Envelope) -> None:
        if envelope.kind != Kind.REQUEST:
            raise FrameError("a reply, on a connection that this node did not dial")
        self._waiting.append(_Waiting(envelope.correlation, len(envelope.body), decoded(decode_request, envelope.body)))
        self.regulate()

    def regulate(self) -> None:
        """Submit waiting requests as far as the limits allow. Continue to read only if none is left waiting."""
        if self._taking_up:
            return
        self._taking_up = True
        while self._waiting and self._has_room():
            self._take_up(self._waiting.popleft())
        self._taking_up = False
        self._read(not self._waiting and self._has_room())

    def _read(self, read: bool) -> None:
        if read == self._reading or self._transport is None or self.state is State.ENDED:
            return
        self._reading = read
        if read:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def ended(self, reason: str) -> None:
        self._waiting.clear()
        self._server.ended(self, reason)

    def _has_room(self) -> bool:
        limits = self._local.limits
        return (
            self._under_way < limits.peer_in_flight
            and self._under_way_bytes < limits.peer_queue_bytes
            and self._outbox.unsent_bytes < limits.peer_queue_bytes
        )

    def _take_up(self, waiting: _Waiting) -> None:
        self._under_way += 1
        self._under_way_bytes += waiting.size
        self._submit(waiting.request, partial(self._answer, waiting.correlation, waiting.size))

    def _answer(self, correlation: int, request_bytes: int, reply: AnyReply | NoReply) -> None:
        self._under_way -= 1
        self._under_way_bytes -= request_bytes
        if self.state is State.ENDED:
            return
        if isinstance(reply, NoReply):
            self._answer_none(correlation, sent=reply.sent)
        elif fits(body := encode(reply), self._local.limits.frame_bytes):
            self.send(Kind.REPLY, correlation, body)
        else:
            logger.error("a reply of %d bytes does not fit into a frame: limits.frame_bytes is too small", len(body))
            self._answer_none(correlation, sent=True)
        self.regulate()

    def _answer_none(self, correlation: int, *, sent: bool) -> None:
        self.send(Kind.NO_REPLY, correlation, msgspec.msgpack.encode(sent))
