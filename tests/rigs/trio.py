"""Three replicas and three coordinators in one process: all real except the stores, in memory, and the peers, which can fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from quorumvault.config.limits import Limits, Timeouts
from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import NoQuorum
from quorumvault.model import Owner
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import AnyRequest, Outgoing, Put, RaiseEpoch, RoundId
from quorumvault.protocol.peer import NoReply, OnReply, Peer
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import Mode, View, first_view
from quorumvault.server.coordinator.coordinator import Coordinator, Identity, Observer
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Store

ACME, OTHER = Owner("acme"), Owner("other")
NODES = ("n1", "n2", "n3")
DISKS = {node: node.encode() * 8 for node in NODES}
VIEW = first_view(DISKS)
KEYRING = Keyring("m1", bytes(range(32)))
#: Longer than any round takes, however loaded the machine is: which replicas are asked then depends on their answers alone, and
#: not on the real time after which a read is hedged.
PATIENT = Timeouts(request=60, round=60, hedge=60)
VALUES = [canonical.from_str(text) for text in ("999-17-5017", "", "02155", "Zoë")]


class SwitchedPeer:
    """A replica that can be unplugged, or accept requests and never answer, and that counts its requests."""

    def __init__(self, node: str, commit: GroupCommit) -> None:
        self.node = node
        self.up = True
        self.hangs = False
        #: Requests accepted without an answer, each with the callback to answer it after all.
        self.unanswered: list[tuple[AnyRequest, OnReply]] = []
        self.drops: Callable[[AnyRequest], bool] = lambda request: False
        self.asked: list[AnyRequest] = []
        self._commit = commit

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        self.asked.append(outgoing.request)
        if not self.up or self.drops(outgoing.request):
            on_reply(NoReply(sent=False))
        elif self.hangs:
            self.unanswered.append((outgoing.request, on_reply))
        else:
            self._commit.submit(outgoing.request, on_reply)


class Diary:
    """Implements Observer."""

    def __init__(self) -> None:
        self.repairs: list[tuple[str, int]] = []
        self.missed: list[tuple[str, int]] = []
        self.fence_retries = 0
        self.left = 0
        self.committed_rounds: list[RoundId] = []
        self.told_alone = 0
        self.hedges: list[Hedge] = []
        self.marks: dict[bytes, Mark] = {}

    def read_repaired(self, node: str, records: int) -> None:
        self.repairs.append((node, records))

    def committed(self, round_id: RoundId) -> None:
        self.committed_rounds.append(round_id)

    def looked_up(self, alone: int, by_quorum: int) -> None:
        self.told_alone += alone

    def fence_retried(self) -> None:
        self.fence_retries += 1

    def left_over(self) -> None:
        self.left += 1

    def hedged(self, hedge: Hedge) -> None:
        self.hedges.append(hedge)

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        self.marks[disk] = mark

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        assert disk == DISKS[node]
        self.missed.append((node, len(request.digests) if isinstance(request, Put) else 0))


@dataclass
class Trio:
    """Three replicas, and a coordinator on each node; all of them write to one diary."""

    peers: dict[str, SwitchedPeer]
    stores: dict[str, MemoryStore]
    coordinators: dict[str, Coordinator]
    diary: Diary
    #: Nodes whose disks have no free room.
    full: set[str]

    async def settled(self) -> None:
        """Waits until each replica has handled everything sent to it: an answer waits for only two of the three."""
        for peer in self.peers.values():
            # A read would not do: the storage thread may handle it before writes that were sent earlier.
            await on_storage_thread(peer._commit, lambda replica: None)

    async def written_to_n1_alone(self) -> str:
        """Writes the first of VALUES to n1 alone; no other replica hears of it. Returns its token."""
        for node in ("n2", "n3"):
            self.peers[node].drops = lambda request: isinstance(request, Put)
        with pytest.raises(NoQuorum):
            await self.coordinators["n1"].tokenize(ACME, VALUES[:1])
        return format_token(1, KEYRING.epoch_keys(ACME, 1).digests(VALUES[:1])[0])


def make_replica(
    store: Store, node: str = "n1", keyring: Keyring = KEYRING, view: View = VIEW, *, incarnation: int = 1, **options: Any
) -> Replica:
    """An active replica of ``node``; ``options`` are those of Replica."""
    identity = DiskIdentity("cluster", node, DISKS[node], incarnation, Mode.ACTIVE, view)
    sizes = {"reply_bytes": Limits().reply_bytes, "copy_bytes": 1 << 20}
    return Replica(store, identity, keyring, **{**sizes, "keep": lambda identity: None, **options})


def make_coordinator(
    node: str,
    peers: Mapping[str, Peer],
    observer: Observer,
    *,
    keyring: Keyring = KEYRING,
    timeouts: Timeouts = PATIENT,
    clock: HybridClock | None = None,
    wall_ms: Callable[[], int] = lambda: 1_000_000,
) -> Coordinator:
    identity = Identity(node, DISKS[node], b"boot")
    return Coordinator(identity, peers, VIEW, keyring, timeouts, clock or HybridClock(), wall_ms, observer)


@contextmanager
def storage_threads(replicas: Mapping[str, Replica]) -> Iterator[dict[str, GroupCommit]]:
    """Runs each replica in its own thread until the block ends. Yields the threads by node."""
    loop, limits = asyncio.get_running_loop(), Limits()
    commits = {node: GroupCommit(replica, loop, limits, lambda failure: None) for node, replica in replicas.items()}
    try:
        yield commits
    finally:
        for commit in commits.values():
            commit.close()


@asynccontextmanager
async def trio(*, digest_bits: int = 160, timeouts: Timeouts = PATIENT) -> AsyncIterator[Trio]:
    keyring = Keyring("m1", bytes(range(32)), digest_bits=digest_bits)
    stores, diary, full = {node: MemoryStore() for node in NODES}, Diary(), set[str]()
    replicas = {
        node: make_replica(store, node, keyring, has_room=lambda node=node: node not in full) for node, store in stores.items()
    }
    with storage_threads(replicas) as commits:
        peers = {node: SwitchedPeer(node, commit) for node, commit in commits.items()}
        coordinators = {node: make_coordinator(node, peers, diary, keyring=keyring, timeouts=timeouts) for node in NODES}
        yield Trio(peers, stores, coordinators, diary, full)


def tokens_of(tokens: list[str | None]) -> list[str]:
    assert None not in tokens
    return [token for token in tokens if token is not None]
