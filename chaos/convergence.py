"""Whenever no fault is active, polls until all nodes are whole and their replicas are identical, and records the time.

Replicas are compared as by ``quorumvault verify``, record by record on disk, through a node's admin socket. The node looks again
after 2 s at records that differ, since a write may be under way. So the harness asks twice, 1 s apart, and the recorded time is
exact to a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto

import httpx2
import msgspec

from chaos.recorder import Recorder
from chaos.testbed.cluster import NODES, Cluster
from chaos.testbed.history import Convergence, Mending, Whole

_POLL_SECONDS = 0.25
#: A node answers /health from memory.
_HEALTH_SECONDS = 1.0
#: How many tasks ask, and how far apart.
_LOOKS, _APART_SECONDS = 2, 1.0
#: A node looks at differing records three times more, 2 s apart, for each slice of a store.
_VERIFY_SECONDS = 30.0


class _Quorum(msgspec.Struct):
    reachable: int


class _Health(msgspec.Struct):
    state: str
    quorum: _Quorum
    damaged: bool = False


class Nodes(Enum):
    """The state of the three nodes together. ``MENDING``: a disk joins, or has not yet recovered records that it lost."""

    WHOLE = auto()
    MENDING = auto()
    AWAY = auto()


class _Verified(msgspec.Struct):
    """The comparison by peer; for an identical replica, only the number of records."""

    peers: dict[str, dict[str, int | str]]


class Replicas:
    """The three replicas, as reported by their nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def nodes(self) -> Nodes:
        async with httpx2.AsyncClient(timeout=_HEALTH_SECONDS, trust_env=False) as client:
            return await nodes_told(client, [self._cluster.url(name) for name in NODES])

    async def difference(self) -> str | None:
        """Returns how one replica differs from the others, or why that is unknown; None if all are identical."""
        socket = self._cluster.nodes[NODES[0]].data / "admin.sock"
        async with httpx2.AsyncClient(timeout=_VERIFY_SECONDS, transport=httpx2.AsyncHTTPTransport(uds=str(socket))) as client:
            return await difference_told(client)


async def nodes_told(client: httpx2.AsyncClient, urls: Sequence[str]) -> Nodes:
    """Returns the combined state that the nodes at these addresses report."""
    found = await asyncio.gather(*(_look_at(client, url) for url in urls))
    return next((state for state in (Nodes.MENDING, Nodes.AWAY) if state in found), Nodes.WHOLE)


async def _look_at(client: httpx2.AsyncClient, url: str) -> Nodes:
    try:
        answer = await client.get(f"{url}/health")
        said = msgspec.json.decode(answer.content, type=_Health)
    except (httpx2.TransportError, msgspec.MsgspecError):
        return Nodes.AWAY
    if said.damaged or said.state == "joining":
        return Nodes.MENDING
    return Nodes.WHOLE if said.state == "active" and said.quorum.reachable == len(NODES) else Nodes.AWAY


async def difference_told(client: httpx2.AsyncClient) -> str | None:
    """Returns, in words, the result of a node's comparison of its replica with both others; None if all are identical."""
    try:
        answer = await client.post("http://localhost/verify")
        peers = msgspec.json.decode(answer.content, type=_Verified).peers
    except (httpx2.TransportError, msgspec.MsgspecError) as error:
        return f"{NODES[0]} does not compare them ({type(error).__name__})"
    if len(peers) < len(NODES) - 1:
        return f"{NODES[0]} compares itself with {len(peers)} others"
    found = {peer: differences for peer, differences in peers.items() if list(differences) != ["records"]}
    return ", ".join(f"{peer}: {differences}" for peer, differences in found.items()) or None


class ConvergenceWatch:
    """Gets told when each fault begins and ends. ``nodes`` and ``difference`` are those of Replicas. Runs on the event loop."""

    def __init__(
        self, nodes: Callable[[], Awaitable[Nodes]], difference: Callable[[], Awaitable[str | None]], recorder: Recorder
    ) -> None:
        self._nodes = nodes
        self._difference = difference
        self._recorder = recorder
        self._faults = 0
        self._look: asyncio.Task[None] | None = None

    def begun(self) -> None:
        self._faults += 1
        self._leave()

    def ended(self) -> None:
        self._faults -= 1
        if not self._faults:
            self._look = asyncio.create_task(self._until_equal())

    async def finish(self, seconds: float) -> None:
        """Called when nothing is broken any more. Waits up to ``seconds`` until the replicas are identical."""
        self._leave()
        try:
            async with asyncio.timeout(seconds):
                await self._until_equal()
        except TimeoutError:
            self._recorder.write(Convergence(self._recorder.now, equal=False))

    def _leave(self) -> None:
        """Stops polling. Raises the error that ended the polling, if any."""
        look, self._look = self._look, None
        if look is not None and not look.cancel() and not look.cancelled():
            look.result()

    async def _until_equal(self) -> None:
        await self._until_whole()
        looks = [asyncio.create_task(self._look_from(place * _APART_SECONDS)) for place in range(_LOOKS)]
        try:
            done, _ = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for look in looks:
                look.cancel()
        done.pop().result()
        self._recorder.write(Convergence(self._recorder.now, equal=True))

    async def _until_whole(self) -> None:
        mending = False
        while (nodes := await self._nodes()) is not Nodes.WHOLE:
            if nodes is Nodes.MENDING and not mending:
                mending = True
                self._recorder.write(Mending(self._recorder.now))
            await asyncio.sleep(_POLL_SECONDS)
        self._recorder.write(Whole(self._recorder.now))

    async def _look_from(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while (different := await self._difference()) is not None:
            self._recorder.note(f"the replicas are not the same yet: {different}")
            await asyncio.sleep(_POLL_SECONDS)
            await self._until_whole()  # a disk may notice only now what it has lost
