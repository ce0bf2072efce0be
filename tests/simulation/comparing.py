"""Processes learn which records are settled: from the coordinators' notices, and by comparing bucket sums with a peer.

After its start each process counts the buckets of its store, and then compares itself with one peer or the other, while clients
ask and faults happen. The keys of all values are gathered in a few groups of buckets (``GatheredKeys``), and only these groups
are counted and compared: all 65,536 buckets, nearly all of them empty, would take longer than the rest of a run. Some processes
can remember only a few unsettled keys, so that this room runs out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from quorumvault.crypto.keys import EpochKeys, Keyring
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.anti_entropy import AskOne, CannotCompare, SettleBuckets, _differing_sums
from quorumvault.protocol.buckets import GROUP_SIZE
from quorumvault.protocol.messages import RoundId
from quorumvault.protocol.peer import NoReply
from quorumvault.server.coordinator.settle_notices import SettleNotices
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, on_storage_thread
from quorumvault.server.replica.replica import OwnWork, Replica
from quorumvault.server.replica.settled import UNSETTLED_KEYS, SettledRecords
from tests.simulation.timeline import drive

if TYPE_CHECKING:
    from tests.simulation.nodes import Process

#: The number of groups that hold all keys, and the number of buckets in these groups.
_GROUPS = 2
BUCKETS_WITH_KEYS = _GROUPS * GROUP_SIZE
#: Buckets that are counted at once; the most seconds between two slices, and between two comparisons of a process; the time of
#: the last comparison.
_SLICE, _BETWEEN, _PAUSE, _UNTIL = 256, 0.05, 1.0, 12.0
#: The share of comparisons that find their process busy before they report to the replica, and for how many seconds at most.
_LATE, _LATENESS = 0.3, 0.4
#: The share of processes that can remember few unsettled keys, and how many keys these remember.
_CRAMPED, _ROOM = 0.3, 3


class GatheredKeys(EpochKeys):
    """Digests whose first byte is the number of a group. Digests that are cut to 8 bits stay as different as they were."""

    __slots__ = ()

    def digests(self, canonicals: Iterable[bytes]) -> list[bytes]:
        found = super().digests(canonicals)
        return [bytes((digest[0] % _GROUPS, digest[1] ^ digest[0] // _GROUPS)) + digest[2:] for digest in found]


def gathered(keyring: Keyring) -> Keyring:
    """The keyring, with gathered digests."""
    real = keyring.epoch_keys

    @lru_cache
    def epoch_keys(owner: Owner, epoch: int) -> EpochKeys:
        keys = real(owner, epoch)
        keys.__class__ = GatheredKeys
        return keys

    keyring.epoch_keys = epoch_keys
    return keyring


def learn_settled(process: Process, rng: Random) -> None:
    """Starts to count, to compare, and to send notices. ``rng`` is used for nothing else."""
    coordinator = process.coordinator
    room = _ROOM if rng.random() < _CRAMPED else UNSETTLED_KEYS
    knobs = process.node.knobs
    process.replica.settled = CountedRecords(process.node.branches, room, knobs.round_keys)
    notices = SettleNotices(process.lines, lambda: coordinator.view, process.schedule.call_later)
    process.observer.settles = notices.committed
    _count(process, rng, 0)
    nonce = b"sums" + process.boot
    client = ReplicaClient(
        process.node.name,
        lambda: process.disk.identity.disk,
        nonce,
        process.lines,
        lambda: coordinator.view,
        knobs.timeouts.round,
    )
    timeline = process.node.timeline

    def again(_: object = None, error: Exception | None = None) -> None:
        if error is not None and not isinstance(error, NoAnswer | CannotCompare):
            raise error
        if timeline.now < _UNTIL:
            at = timeline.now + rng.random() * _PAUSE
            timeline.at(at, process.schedule, lambda: drive(_compare(process, client, rng), again))

    again()


class CountedRecords(SettledRecords):
    """Counts in ``branches`` how keys become settled, and how often this knowledge is forgotten."""

    def __init__(self, branches: Counter[str], room: int, round_keys: int) -> None:
        super().__init__(room, round_keys)
        self._branches = branches

    def committed(self, rounds: Iterable[RoundId]) -> None:
        self._count("settled by notice", lambda: super(CountedRecords, self).committed(rounds))

    def compared(self, buckets: Iterable[range], sequence: int) -> None:
        self._count("settled by comparison", lambda: super(CountedRecords, self).compared(buckets, sequence))

    def forget(self) -> None:
        self._branches["settled and forgotten"] += self.buckets_known
        super().forget()

    def _count(self, branch: str, learn: Callable[[], object]) -> None:
        before = len(self._unsettled)
        learn()
        self._branches[branch] += before - len(self._unsettled)


def _count(process: Process, rng: Random, first: int) -> None:
    timeline, storage = process.node.timeline, process.storage

    def work(replica: Replica) -> int:
        inventory = replica.inventory
        usual, inventory.slice_records = inventory.slice_records, _SLICE // 16
        following = inventory.count(first)
        inventory.slice_records = usual
        inventory.sums.complete = inventory.sums.complete or following >= BUCKETS_WITH_KEYS  # the other buckets are empty
        return following

    def count() -> None:
        storage.submit(OwnWork(work), counted)

    def counted(following: Any) -> None:
        """Counts on from there, or from the same bucket again if too much was waiting for the disk."""
        _count(process, rng, first if isinstance(following, NoReply) else following)

    if first < BUCKETS_WITH_KEYS:
        timeline.at(timeline.now + rng.random() * _BETWEEN, process.schedule, count)


async def _compare(process: Process, client: ReplicaClient, rng: Random) -> None:
    """Compares the process with one peer or the other."""
    peer = rng.choice([name for name in NODE_NAMES if name != client.node])
    steps = _differing_sums(list(range(_GROUPS)))
    outcome = None
    try:
        while True:
            match steps.send(outcome):
                case AskOne(of_peer=of_peer, request=request):
                    outcome = await client.ask(peer if of_peer else client.node, request.sent_in)
                case SettleBuckets(view=view, sequence=sequence, buckets=buckets):

                    def settle(replica: Replica) -> None:
                        replica.settle(view, buckets, sequence)

                    if rng.random() < _LATE:
                        await _elapse(process, rng.random() * _LATENESS)
                    await on_storage_thread(process.storage, settle)
                    outcome = None
    except StopIteration:
        return


async def _elapse(process: Process, seconds: float) -> None:
    passed = process.schedule.create_future()
    process.schedule.call_later(seconds, passed.set_result, None)
    await passed
