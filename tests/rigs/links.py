"""Both ends of links between nodes, on loopback sockets; the test controls what stands between them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quorumvault.config.addresses import Address
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.protocol.messages import AnyReply, AnyRequest, EpochIs, Outgoing, ReadEpoch, RoundId
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.protocol.views import Mode
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection import LocalNode
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import Envelope, FrameReader, Kind, frame
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.server import PeerServer
from quorumvault.server.tls import TlsSession
from tests.rigs.certificates import CLUSTER, credentials, node_pem

#: Runs a scenario on an event loop: the fixture ``run`` in tests/conftest.py.
Run = Callable[[Coroutine[object, object, None]], None]

ANY_PORT = Address("127.0.0.1", 0)
DISK = b"D" * 16
VIEW = (1, bytes(16))
LIMITS = Limits()
#: Long, so that a busy machine upsets no test; but quick to dial again.
TIMEOUTS = Timeouts(handshake=15, ping=5, silence=15, reconnect_first=0.01, reconnect_last=0.05)
#: For tests in which these times run out.
IMPATIENT = msgspec.structs.replace(TIMEOUTS, handshake=0.3, ping=0.1, silence=0.3)
#: Seconds within which each condition that a test waits for must come about, or the test fails.
DEADLINE = 20.0


def facts_of(node: str, **changes: Any) -> NodeFacts:
    facts = NodeFacts(
        cluster_id=CLUSTER,
        protocol=1,
        version="1.0",
        node=node,
        disk=node.encode() * 8,
        incarnation=1,
        mode=Mode.ACTIVE,
        view=None,
        secrets={"s1": "fingerprint"},
        fields="fields",
        keys="keys",
    )
    return msgspec.structs.replace(facts, **changes)


def local_node(node: str, **changes: Any) -> LocalNode:
    """A node for links. ``pem``: a certificate to use instead of the node's own."""
    own = credentials(changes.pop("pem", None) or node_pem(node))
    made = LocalNode(lambda: own, lambda: facts_of(node), Claims(node), lambda reason: None, limits=LIMITS, timeouts=TIMEOUTS)
    return dataclasses.replace(made, **changes)


async def eventually(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds; checks it in about every turn of the loop."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, most without an event
            await asyncio.sleep(0.001)


def request(number: int) -> ReadEpoch:
    return ReadEpoch(RoundId(DISK, b"boot", number), VIEW, b"o" * 16)


def reply_to(asked: AnyRequest, *, padding: int = 0) -> EpochIs:
    return EpochIs(asked.round, asked.view, DISK, asked.round.counter, "s" * padding)


class StubReplica:
    """Keeps what is submitted; answers when told to, or at once."""

    def __init__(self, *, at_once: bool = False, padding: int = 0) -> None:
        self.held: list[tuple[AnyRequest, OnReply]] = []
        self.taken = 0
        self._at_once = at_once
        self._padding = padding

    async def has_taken(self, count: int) -> None:
        await eventually(lambda: self.taken == count)

    def submit(self, asked: AnyRequest, on_reply: OnReply) -> None:
        self.taken += 1
        if self._at_once:
            on_reply(reply_to(asked, padding=self._padding))
        else:
            self.held.append((asked, on_reply))

    def answer(self, index: int = 0) -> None:
        asked, on_reply = self.held.pop(index)
        on_reply(reply_to(asked, padding=self._padding))


@dataclass
class Asker:
    """Sends numbered requests over a link, and keeps the replies to each."""

    link: Link
    sent: int = 0
    got: dict[int, list[AnyReply | NoReply]] = field(default_factory=dict)

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            self.got[self.sent] = []
            self.link.send(Outgoing(request(self.sent)), self.got[self.sent].append)

    @property
    def settled(self) -> int:
        return sum(len(replies) > 0 for replies in self.got.values())

    async def has_settled(self, count: int) -> None:
        await eventually(lambda: self.settled == count)

    @property
    def replies(self) -> list[AnyReply | NoReply]:
        """One reply for each request, in the order of the requests; fails if a request got more or fewer."""
        assert {len(replies) for replies in self.got.values()} <= {1}
        return [replies[0] for replies in self.got.values()]


@contextlib.asynccontextmanager
async def serving(replica: StubReplica, address: Address = ANY_PORT, **options: Any) -> AsyncIterator[PeerServer]:
    """n2's peer port, for n1 and n3."""
    server = PeerServer(address, local_node("n2", **options), others=("n1", "n3"), submit=replica.submit)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@dataclass
class Linked:
    link: Link
    #: The value of ``up`` after each change.
    changes: list[bool] = field(default_factory=list)

    async def up(self) -> None:
        await eventually(lambda: self.link.up)

    async def down(self) -> None:
        await eventually(lambda: not self.link.up)


@contextlib.asynccontextmanager
async def linking(
    address: Address, *, node: str = "n1", source: str | None = "127.0.0.1", **options: Any
) -> AsyncIterator[Linked]:
    """n1's link to n2."""
    changes: list[bool] = []
    link = Link(
        "n2",
        address,
        local_node(node, **options),
        source=source,
        rng=random.Random(1),
        on_change=lambda link: changes.append(link.up),
    )
    link.start()
    try:
        yield Linked(link, changes)
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def asking(address: Address, **options: Any) -> AsyncIterator[tuple[Linked, Asker]]:
    """n1's link to n2, once it is up."""
    async with linking(address, **options) as linked:
        await linked.up()
        yield linked, Asker(linked.link)


class Relay:
    """A relay between a dialler and a listener: it records bytes, changes them, holds them back, and cuts the connection."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self.address = ANY_PORT
        #: All bytes of all connections, by their origin.
        self.seen = {"dialler": bytearray(), "listener": bytearray()}
        #: Called with the origin and the bytes to pass on; returns the bytes to send instead.
        self.change: Callable[[str, bytes], bytes] = lambda origin, data: data
        self.frozen = False
        self.halves: set[_Half] = set()
        #: Connections to the listener that are under way.
        self.dials: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: _Half(self, "dialler"), self.address.host, 0)
        self.address = Address(self.address.host, listener.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            listener.close()
            self.cut()
            # A connection that is made only now has a half of its own, which ends once it is joined to a half that has ended.
            await asyncio.gather(*self.dials)
            await eventually(lambda: not self.halves)
            await listener.wait_closed()

    def cut(self) -> None:
        for half in tuple(self.halves):
            half.end()

    def thaw(self) -> None:
        self.frozen = False
        for half in tuple(self.halves):
            half.pass_on()

    async def dial(self, accepted: _Half) -> None:
        try:
            _, dialled = await asyncio.get_running_loop().create_connection(lambda: _Half(self, "listener"), *self._target)
        except OSError:
            accepted.end()
        else:
            accepted.join(dialled)


class _Half(asyncio.Protocol):
    """One of the two sockets of a relayed connection."""

    def __init__(self, relay: Relay, origin: str) -> None:
        self._relay = relay
        self._origin = origin
        self._other: _Half | None = None
        self._waiting = b""
        self._over = False
        self._hang_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._relay.halves.add(self)
        if self._origin == "dialler":
            dial = asyncio.get_running_loop().create_task(self._relay.dial(self))
            self._relay.dials.add(dial)
            dial.add_done_callback(self._relay.dials.discard)

    def join(self, other: _Half) -> None:
        self._other, other._other = other, self
        if self._over:
            other.end()
        self.pass_on()
        other.pass_on()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self.pass_on()

    def pass_on(self) -> None:
        if self._waiting and self._other is not None and not self._relay.frozen:
            data, self._waiting = self._waiting, b""
            self._relay.seen[self._origin] += data
            if not self._other._over:
                self._other._transport.write(self._relay.change(self._origin, data))
        if self._hang_up and not self._relay.frozen:
            self._transport.close()

    def end(self) -> None:
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._relay.halves.discard(self)
        if self._other is not None:
            self._other._hang_up = True
            self._other.pass_on()


class RawDialler:
    """A dialler that a test drives by hand: it does what a link would not do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, address: Address) -> AsyncIterator[RawDialler]:
        reader, writer = await asyncio.open_connection(*address)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def shake_hands(self, pem: bytes | None = None) -> None:
        """Shakes hands. ``pem``: a certificate to use instead of n1's."""
        self.tls = TlsSession(credentials(pem or node_pem("n1")).dialling, server_side=False)
        self.tls.start()
        while not self.tls.established:
            self.writer.write(self.tls.outgoing())
            self.tls.feed(await self.reader.read(1 << 18))
        self.writer.write(self.tls.outgoing())
        self._in = FrameReader(LIMITS.frame_bytes)

    async def greet(self, to: str = "n2") -> None:
        await self.shake_hands()
        self.send(Envelope(Kind.GREETING, 0, saying.encode(Greeting(to, facts_of("n1")))))
        (greeting,) = await self.receive()
        assert greeting.kind == Kind.GREETING

    def send(self, *envelopes: Envelope) -> None:
        """Sends the envelopes in one frame."""
        self.writer.write(self.tls.seal(frame(envelopes)))

    async def receive(self) -> list[Envelope]:
        """Returns at least one envelope, or none if the connection has ended."""
        async with asyncio.timeout(DEADLINE):
            while data := await self._read():
                self.tls.feed(data)
                if received := self._in.feed(self.tls.read_all()):
                    return received
        return []

    async def rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        received = b""
        async with asyncio.timeout(DEADLINE):
            while data := await self._read():
                received += data
        return received

    async def _read(self) -> bytes:
        try:
            return await self.reader.read(1 << 18)
        except ConnectionError:
            return b""
