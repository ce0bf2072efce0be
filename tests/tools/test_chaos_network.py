"""The proxies between nodes: each direction of a link can be cut, or lose or repeat bytes, without affecting the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chaos.network import Links, Weather
from chaos.testbed.cluster import HOST, NODES

SECONDS = 20.0


@dataclass
class Node:
    """Listens, and keeps incoming connections."""

    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.accepted.put((reader, writer))


@dataclass
class Pair:
    """Both ends of a connection that n1 dialled to n2."""

    links: Links
    near: asyncio.StreamReader
    ask: asyncio.StreamWriter
    far: asyncio.StreamReader
    answer: asyncio.StreamWriter


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Links, Node]]:
    """The proxies, and n2. Nobody listens at the addresses of the other two nodes."""
    node = Node()
    server = await asyncio.start_server(node.serve, HOST, 0)
    nobody = await asyncio.start_server(node.serve, HOST, 0)
    free = nobody.sockets[0].getsockname()
    nobody.close()
    links = Links({name: server.sockets[0].getsockname() if name == "n2" else free for name in NODES}, seed=1)
    await links.open()
    try:
        yield links, node
    finally:
        await links.close()
        server.close()
        while not node.accepted.empty():
            node.accepted.get_nowait()[1].close()


async def dial(links: Links, listener: str = "n2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = links.address("n1", listener).rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Returns the remaining bytes until the connection ends, in whatever way."""
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


def connected(scenario: Callable[[Pair], Awaitable[None]]) -> Callable[[], None]:
    """Makes a test of a scenario on two ends that are connected through the proxies."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), linked() as (links, node):
            near, ask = await dial(links)
            far, answer = await node.accepted.get()
            try:
                await scenario(Pair(links, near, ask, far, answer))
            finally:
                ask.close()
                answer.close()

    return lambda: asyncio.run(run())


def proxied(scenario: Callable[[Links, Node], Awaitable[None]]) -> Callable[[], None]:
    """Makes a test of a scenario on the proxies and n2."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), linked() as (links, node):
            await scenario(links, node)

    return lambda: asyncio.run(run())


@connected
async def test_a_wire_that_is_cut_holds_back_and_the_other_way_passes(pair: Pair) -> None:
    await pair.links.cut([("n1", "n2")], loses=False)
    pair.ask.write(b"held")
    pair.answer.write(b"passes")
    assert await pair.near.readexactly(6) == b"passes"
    waiting = asyncio.create_task(pair.far.readexactly(4))
    pair.answer.write(b"again")
    assert await pair.near.readexactly(5) == b"again"
    assert not waiting.done()
    await pair.links.mend([("n1", "n2")])
    assert await waiting == b"held"


@connected
async def test_a_cut_may_lose_what_was_sent_meanwhile_and_the_connection_with_it(pair: Pair) -> None:
    await pair.links.cut([("n2", "n1")], loses=True)
    pair.answer.write(b"lost")
    pair.ask.write(b"passes")
    assert await pair.far.readexactly(6) == b"passes"
    await pair.links.mend([("n2", "n1")])
    assert await rest(pair.near) == await rest(pair.far) == b""


@connected
async def test_another_link_is_not_touched(pair: Pair) -> None:
    await pair.links.cut([("n1", "n3"), ("n3", "n1"), ("n3", "n2"), ("n2", "n3")], loses=True)
    pair.ask.write(b"passes")
    assert await pair.far.readexactly(6) == b"passes"


@proxied
async def test_a_connection_that_is_opened_while_a_wire_is_cut_gets_through_once_it_is_mended(links: Links, node: Node) -> None:
    await links.cut([("n2", "n1")], loses=False)
    _, ask = await dial(links)
    ask.write(b"late")
    _, other = await dial(links, "n3")
    assert node.accepted.empty()
    await links.mend([("n2", "n1")])
    far, answer = await node.accepted.get()
    assert await far.readexactly(4) == b"late"
    for writer in (ask, other, answer):
        writer.close()


@pytest.mark.parametrize(("weather", "arrives"), [(Weather(loss=1.0), b""), (Weather(twice=1.0), b"spoiltspoilt")])
def test_bytes_are_lost_or_come_twice_and_the_connection_ends_when_that_is_mended(weather: Weather, arrives: bytes) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.links.disturb([("n1", "n2")], weather)
        pair.ask.write(b"spoilt")
        pair.answer.write(b"whole")
        assert await pair.near.readexactly(5) == b"whole"
        assert await pair.far.readexactly(len(arrives)) == arrives
        await pair.links.mend([("n1", "n2")])
        assert await rest(pair.near) == await rest(pair.far) == b""

    connected(scenario)()


@connected
async def test_what_is_only_late_goes_on_afterwards(pair: Pair) -> None:
    await pair.links.disturb([("n1", "n2"), ("n2", "n1")], Weather(delay=0.001, spread=0.001))
    pair.ask.write(b"late")
    assert await pair.far.readexactly(4) == b"late"
    await pair.links.mend([("n1", "n2"), ("n2", "n1")])
    pair.ask.write(b"as before")
    assert await pair.far.readexactly(9) == b"as before"


@proxied
async def test_where_nobody_listens_the_connection_ends(links: Links, node: Node) -> None:
    reader, writer = await dial(links, "n3")
    assert await rest(reader) == b""
    writer.close()


@connected
async def test_an_end_that_is_closed_closes_the_other(pair: Pair) -> None:
    pair.ask.write(b"last words")
    pair.ask.close()
    assert await pair.far.readexactly(10) == b"last words"
    assert await rest(pair.far) == b""


@proxied
async def test_a_node_that_has_moved_is_dialled_there_and_at_home_again_when_it_is_back(links: Links, home: Node) -> None:
    away = Node()
    server = await asyncio.start_server(away.serve, HOST, 0)
    address = server.sockets[0].getsockname()
    for there, place in ((home, None), (away, address[:2]), (home, None)):
        await links.move("n2", place)
        _, ask = await dial(links)
        _, answer = await there.accepted.get()
        answer.close()
        ask.close()
    server.close()
