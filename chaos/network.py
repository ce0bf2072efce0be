"""The interface through which faults reach the network, and a network that needs no root: a TCP proxy on each link.

    n1 ──dials──▶ proxy n1→n2 ──dials──▶ n2          bytes one way are wire (n1, n2), the others (n2, n1)

Each node starts with its own configuration, in which its peers have the addresses of its proxies. Each node dials both others, so
there are six proxies. Each wire runs through two of them: one carries its requests, the other its replies.

A wire that is cut holds bytes back, as TCP does with unacknowledged packets, and delivers them once it is mended. A connection
opened meanwhile reaches only the proxy. Lost or duplicate bytes corrupt the stream, which no real network does to TCP. Nodes have
to notice, since TLS authenticates each record, and connect again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol

import yaml

from chaos.nemesis import Wire
from chaos.testbed.cluster import NODES, Cluster
from chaos.workload import OWNERS

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Weather:
    """The delay of bytes in seconds, and the most jitter; the share of chunks that are lost, or duplicated."""

    delay: float = 0.0
    spread: float = 0.0
    loss: float = 0.0
    twice: float = 0.0


class Network(Protocol):
    """A network. A wire may be cut or disturbed, never both."""

    async def cut(self, wires: Collection[Wire], *, loses: bool) -> None:
        """Stops all bytes on these wires. Connections stay open and hang; bytes sent meanwhile may be lost for good."""

    async def disturb(self, wires: Collection[Wire], weather: Weather) -> None: ...

    async def mend(self, wires: Collection[Wire]) -> None: ...

    async def move(self, node: str, address: tuple[str, int] | None) -> None:
        """Redirects connections to this node to another host and port; None directs them back. Raises Unavailable."""


#: (an empty directory, the run's seed) → a cluster in the directory, not yet started, and the network between its nodes.
Site = Callable[[Path, int], AbstractAsyncContextManager[tuple[Cluster, Network]]]

_CALM = Weather()


class _WireState:
    """The state of one direction of a link."""

    def __init__(self) -> None:
        self.weather = _CALM
        self.loses = False
        self.passes = asyncio.Event()
        self.passes.set()

    @property
    def spoils(self) -> bool:
        """True if bytes on this wire may be lost or duplicated, so that its connections must end when it is mended."""
        return self.loses or self.weather.loss > 0 or self.weather.twice > 0


class Links:
    """The proxies between nodes at these peer addresses (host, port). Implements Network. Call ``open`` first, ``close`` last.

    ``seed`` determines which bytes are late, lost or duplicated, as far as the machine's timing allows.
    """

    def __init__(self, peers: Mapping[str, tuple[str, int]], seed: int) -> None:
        self._peers = dict(peers)
        #: The other addresses of nodes that were moved.
        self._moved: dict[str, tuple[str, int]] = {}
        self._rng = Random(seed)
        self._wires = {(a, b): _WireState() for a in peers for b in peers if a != b}
        self._servers: dict[Wire, asyncio.Server] = {}
        self._connections: dict[asyncio.Task[None], Wire] = {}

    async def open(self) -> None:
        for dialler, listener in self._wires:
            serve = partial(self._serve, dialler, listener)
            self._servers[dialler, listener] = await asyncio.start_server(serve, self._peers[listener][0], 0)

    def address(self, dialler: str, listener: str) -> str:
        """Returns HOST:PORT at which ``dialler`` reaches ``listener``."""
        host, port = self._servers[dialler, listener].sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        await self._end(self._connections)

    async def cut(self, wires: Collection[Wire], *, loses: bool) -> None:
        for wire in wires:
            self._wires[wire].passes.clear()
            self._wires[wire].loses = loses

    async def disturb(self, wires: Collection[Wire], weather: Weather) -> None:
        for wire in wires:
            self._wires[wire].weather = weather

    async def mend(self, wires: Collection[Wire]) -> None:
        """Mends wires, and delivers held bytes. Ends connections that lost bytes; connections that were only late go on."""
        spoilt = {link for wire in wires if self._wires[wire].spoils for link in (wire, wire[::-1])}
        await self._end([task for task, link in self._connections.items() if link in spoilt])
        for wire in wires:
            state = self._wires[wire]
            state.weather, state.loses = _CALM, False
            state.passes.set()

    async def move(self, node: str, address: tuple[str, int] | None) -> None:
        """Redirects new connections only; open connections stay where they are."""
        if address is None:
            self._moved.pop(node, None)
        else:
            self._moved[node] = address

    async def _end(self, connections: Collection[asyncio.Task[None]]) -> None:
        tasks = list(connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, dialler: str, listener: str, near: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """Serves one connection from ``dialler`` to ``listener``, until either end closes it or the stream is corrupted."""
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = dialler, listener
        try:
            there, back = self._wires[dialler, listener], self._wires[listener, dialler]
            await there.passes.wait()
            await back.passes.wait()
            far, ask = await asyncio.open_connection(*self._moved.get(listener, self._peers[listener]))
            with contextlib.closing(ask):
                pumps = [asyncio.create_task(self._pump(there, near, ask)), asyncio.create_task(self._pump(back, far, answer))]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # no process listens there: the dialler's connection ends, as if refused
        except asyncio.CancelledError:
            pass  # cancelled from outside: the task is over, and the server does not need its result
        finally:
            del self._connections[task]
            answer.transport.abort()

    async def _pump(self, wire: _WireState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            weather = wire.weather
            if weather.delay:
                await asyncio.sleep(weather.delay + self._rng.random() * weather.spread)
            await wire.passes.wait()
            if self._rng.random() < weather.loss:
                continue
            writer.write(data * 2 if self._rng.random() < weather.twice else data)
            await writer.drain()


@contextlib.asynccontextmanager
async def on_loopback(place: Path, seed: int) -> AsyncIterator[tuple[Cluster, Network]]:
    with Cluster.create(place / "cluster", OWNERS) as cluster:
        async with behind_proxies(cluster, seed) as links:
            try:
                yield cluster, links
            finally:
                cluster.close()


@contextlib.asynccontextmanager
async def behind_proxies(cluster: Cluster, seed: int) -> AsyncIterator[Links]:
    """Yields open proxies for a cluster that has not started. Each node gets a configuration with its proxies as peers."""
    settings = yaml.safe_load((cluster.directory / "cluster.yaml").read_text())
    links = Links({name: _host_port(settings["nodes"][name]["peer"]) for name in NODES}, seed)
    await links.open()
    try:
        for name, node in cluster.nodes.items():
            node.config = f"cluster-{name}.yaml"
            (cluster.directory / node.config).write_text(_view_of(name, settings, links))
        yield links
    finally:
        await links.close()


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _view_of(name: str, settings: dict[str, object], links: Links) -> str:
    nodes = settings["nodes"]
    assert isinstance(nodes, dict)
    seen = {other: entry if other == name else {**entry, "peer": links.address(name, other)} for other, entry in nodes.items()}
    return yaml.safe_dump({**settings, "nodes": seen}, sort_keys=False)
