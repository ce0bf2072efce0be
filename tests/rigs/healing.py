"""Three nodes in one process that heal each other: real replicas, storage threads and coordinators, over paths that tests cut."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from quorumvault.config.cluster import HealingSettings
from quorumvault.config.limits import Timeouts
from quorumvault.crypto import canonical
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.messages import Put, RaiseEpoch
from quorumvault.server.healing.healer import Healer, HealerCallbacks
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.healing.scrub import Neighbours, ScrubCounts
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Store
from tests.rigs import trio
from tests.rigs.trio import DISKS, SwitchedPeer, make_coordinator, make_replica, storage_threads

CLINIC, REGISTRY = Owner("clinic"), Owner("registry")
#: Healing without pauses: tests call it, and wait for nothing else.
SETTINGS = HealingSettings(share=1.0, scrub=0.001)


def values(first: int, end: int) -> list[bytes]:
    """Canonical forms of the texts of these numbers."""
    return [canonical.from_str(str(number)) for number in range(first, end)]


class Diary(trio.Diary):
    """Records what one node's healing, and its coordinator, reported. Also implements the healer's Observer."""

    def __init__(self) -> None:
        super().__init__()
        self.missed_by: Callable[[str, bytes, Put | RaiseEpoch], None] = lambda node, disk, request: None
        self.leaves: Callable[[], None] = lambda: None
        self.handoffs: list[tuple[str, int]] = []
        self.comparisons: list[tuple[str, Compared | str]] = []
        self.given_up: list[str] = []
        self.announced = 0

    def handed_off(self, node: str, records: int) -> None:
        self.handoffs.append((node, records))

    def compared(self, node: str, outcome: Compared | str) -> None:
        self.comparisons.append((node, outcome))

    def scrubbed(self, counts: ScrubCounts) -> None: ...

    def announce(self) -> None:
        self.announced += 1

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        self.missed_by(node, disk, request)

    def left_over(self) -> None:
        self.leaves()


class Node:
    """``ways``: the paths to all replicas, its own too. ``now``: its wall clock, in milliseconds. ``healer`` can be replaced."""

    def __init__(self, name: str, stores: Mapping[str, Store], commits: Mapping[str, GroupCommit], settings: HealingSettings):
        self.name = name
        self.store = stores[name]
        self.commit = commits[name]
        self.ways = {node: SwitchedPeer(node, commit) for node, commit in commits.items()}
        self.diary = Diary()
        self.now = 1_000_000
        self.neighbours = Neighbours(all_active=True, damaged=frozenset())
        self.room_beside = True
        self._settings = settings
        self.coordinator = make_coordinator(name, self.ways, self.diary, timeouts=Timeouts(), wall_ms=lambda: self.now)
        self.healer = self.restart_healing()

    def restart_healing(self) -> Healer:
        """Replaces the healer as a restart of the process does: memory is lost."""
        around = HealerCallbacks(
            name=self.name,
            disk=lambda: DISKS[self.name],
            nonce=b"healing",
            peers=self.ways,
            view=lambda: self.coordinator.view,
            neighbours=lambda: self.neighbours,
            room_beside=lambda: self.room_beside,
            announce=self.diary.announce,
            give_up=self.diary.given_up.append,
            wall_ms=lambda: self.now,
            rng=random.Random(self.name),
        )
        self.healer = Healer(around, self.commit, self._settings, Timeouts(), self.diary)
        self.diary.missed_by = self.healer.handoff.missed
        self.diary.leaves = self.healer.anti_entropy.left_over
        return self.healer

    def records(self) -> dict[bytes, bytes]:
        return dict(self.store.scan(layout.RECORD))

    def common(self) -> dict[bytes, bytes]:
        """The part of the store that all disks have in common once they are healed."""
        return self.records() | dict(self.store.scan(layout.REGISTER)) | dict(self.store.scan(layout.OWNER))

    def hints(self) -> list[bytes]:
        return [key for key, _ in self.store.scan(layout.HINT)]

    async def settled(self) -> None:
        """Waits until the storage thread has done everything asked of it so far."""
        await on_storage_thread(self.commit, lambda replica: None)


class Cluster(dict[str, Node]):
    async def cut_off(self, *names: str) -> None:
        """Cuts these nodes off. Earlier messages are stored first: two of three nodes acknowledge, and the third may be late."""
        await self.settled()
        for node in self.values():
            for name in names:
                node.ways[name].up = False

    def bring_back(self, name: str) -> None:
        for node in self.values():
            node.ways[name].up = True

    async def settled(self) -> None:
        for node in self.values():
            await node.settled()

    async def compare_all(self) -> None:
        """Lets each node compare itself with the others, if that is due."""
        for node in self.values():
            await node.healer.anti_entropy.once()


@asynccontextmanager
async def cluster(
    stores: Mapping[str, Store] | None = None, settings: HealingSettings = SETTINGS, copy_bytes: int = 1 << 20
) -> AsyncIterator[Cluster]:
    """Nodes over these stores, or over empty ones in memory. Nothing runs in the background: tests call parts of ``healer``."""
    used = stores or {node: MemoryStore() for node in NODE_NAMES}
    with storage_threads({name: make_replica(used[name], name, copy_bytes=copy_bytes) for name in NODE_NAMES}) as commits:
        yield Cluster({name: Node(name, used, commits, settings) for name in NODE_NAMES})


def in_cluster(
    test: Callable[[Cluster], Awaitable[None]], stores: Mapping[str, Store] | None = None, copy_bytes: int = 1 << 20
) -> None:
    async def run() -> None:
        async with cluster(stores, copy_bytes=copy_bytes) as nodes:
            await test(nodes)

    asyncio.run(run())
