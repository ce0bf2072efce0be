"""A replica's knowledge of settled records, as a part of a model's state, and the steps by which the real code learns.

This knowledge changes only what the replica tells alone. So a scope follows the knowledge of the disks that it asks alone, and
loses nothing by leaving out what others know.

Sequence numbers count writes without end. Only their order decides anything, so each step renumbers them: states that differ in
nothing else become one.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from quorumvault.protocol import anti_entropy, messages, records
from quorumvault.protocol.anti_entropy import AskOne, MergeRecords, SettleBuckets
from quorumvault.protocol.buckets import BUCKETS, GROUP_SIZE, bucket_of
from quorumvault.protocol.messages import Fetched, Outgoing, Put, RoundId, Settle, Sums
from quorumvault.protocol.views import View, ViewId
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.settle_notices import SettleNotices
from quorumvault.server.healing.anti_entropy import merge_records
from quorumvault.server.replica.bucket_sums import total
from quorumvault.server.replica.replica import Replica
from quorumvault.server.replica.settled import UNSETTLED_KEYS, SettledRecords
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import Store

_ROUND = RoundId(b"anti-entropy", b"", 0)


@dataclass(frozen=True)
class Due:
    """A comparison has found equal sums, and has not yet reported them to its replica."""

    view: ViewId
    sequence: int


@dataclass(frozen=True)
class Memory:
    """What the process of a disk knows, and the state of its comparison with a peer: the peer's sums, or the result due."""

    whole: bool = False
    unsettled: frozenset[tuple[bytes, int]] = frozenset()
    rounds: frozenset[tuple[RoundId, tuple[bytes, ...]]] = frozenset()
    overflowed: int = 0
    comparing: Sums | Due | None = None

    @property
    def sequence(self) -> int:
        """The disk's sequence number: not below any remembered one, and below all future ones."""
        due = self.comparing.sequence if isinstance(self.comparing, Due) else 0
        return max([due, self.overflowed, *(sequence for _, sequence in self.unsettled)])


@dataclass(frozen=True)
class Knowing:
    """How replicas learn in a scope.

    ``place``: the place of all records. ``disks``: the numbers of the disks whose knowledge is followed. ``whole``: these disks
    know the whole bucket from the beginning. ``compares``: they compare it with peers. ``mends``: anti-entropy brings records
    from other disks, on all disks. ``room``: the most unsettled keys that a disk remembers.
    """

    place: bytes
    disks: Collection[int] = (0,)
    whole: bool = False
    compares: bool = True
    mends: bool = False
    room: int = UNSETTLED_KEYS

    @property
    def bucket(self) -> int:
        return bucket_of(self.place)

    def fresh(self, disk: int) -> Memory | None:
        """The knowledge of a process that begins on this disk; None if it is not followed."""
        return Memory() if disk in self.disks else None

    def first(self, disk: int) -> Memory | None:
        return Memory(whole=self.whole) if disk in self.disks else None


@dataclass(eq=False)
class Process:
    """A replica during one step. ``comparing`` is the same as in Memory; ``knows`` is False if the knowledge is not followed."""

    replica: Replica
    store: Store
    knowing: Knowing | None
    knows: bool = False
    comparing: Sums | Due | None = None

    def remember(self, memory: Memory | None) -> None:
        """Starts with this knowledge. The store has its sequence number already."""
        if self.knowing is None or memory is None:
            return
        self.knows, self.comparing = True, memory.comparing
        settled = self.replica.settled = SettledRecords(self.knowing.room)
        if memory.whole:
            settled._whole = bytearray(BUCKETS)
            settled._whole[self.knowing.bucket] = 1
        settled._unsettled.update(memory.unsettled)
        settled._rounds.update(memory.rounds)
        settled._held = sum(len(keys) for _, keys in memory.rounds)
        settled._overflowed = memory.overflowed

    def memory(self) -> Memory | None:
        if self.knowing is None or not self.knows:
            return None
        settled, comparing = self.replica.settled, self.comparing
        due = [comparing.sequence] if isinstance(comparing, Due) else []
        numbers = sorted({*settled._unsettled.values(), settled._overflowed, *due})
        if isinstance(comparing, Due):
            comparing = Due(comparing.view, numbers.index(comparing.sequence))
        return Memory(
            bool(settled._whole) and settled._whole[self.knowing.bucket] == 1,
            frozenset((key, numbers.index(sequence)) for key, sequence in settled._unsettled.items()),
            frozenset((round_id, tuple(keys)) for round_id, keys in settled._rounds.items()),
            numbers.index(settled._overflowed),
            comparing,
        )

    # Steps of a comparison, in the order of protocol/anti_entropy.py.

    def sums(self, view: View | None) -> Sums | None:
        """Returns this disk's sums of the bucket's group; None if the disk does not vote in the view."""
        assert self.knowing is not None
        if view is None:
            return None
        sums, bucket = self.replica._sums, self.knowing.bucket
        pairs = list(self.store.scan(layout.bucket_prefix(bucket)))
        sums.learn(bucket, total(pairs), len(pairs))
        sums.complete = True
        (reply,) = self.replica.handle([messages.AskSums(_ROUND, view.id, [bucket // GROUP_SIZE])])
        return reply if isinstance(reply, Sums) else None

    def compare_with(self, theirs: Sums | None) -> None:
        """Begins a comparison, and gives up the one under way."""
        self.comparing = theirs

    def go_on(self, view: View | None) -> None:
        """Reads this disk's own sums, or takes the step that follows from them. ``view`` is the view in which the node asks."""
        assert self.knowing is not None
        theirs, self.comparing = self.comparing, None
        if isinstance(theirs, Due):
            bucket = self.knowing.bucket
            self.replica.settle(theirs.view, [range(bucket, bucket + 1)], theirs.sequence)
        elif theirs is not None and (mine := self.sums(view)) is not None:
            steps = anti_entropy._differing_sums([self.knowing.bucket // GROUP_SIZE])
            assert cast("AskOne", next(steps)).of_peer
            assert not cast("AskOne", steps.send(theirs)).of_peer
            try:
                step = steps.send(mine)
            except StopIteration:
                return
            if isinstance(step, SettleBuckets) and any(self.knowing.bucket in some for some in step.buckets):
                self.comparing = Due(step.view, step.sequence)

    def mend(self, fetched: Fetched, place: bytes) -> None:
        """Takes over a peer's record."""
        (record,) = fetched.records
        if record is not None:
            merge_records(self.replica, MergeRecords(fetched.names, {place: record}))

    def fetch(self, view: View | None, place: bytes) -> Fetched | None:
        """Returns what a peer is told of this disk's record; None if the disk does not vote in the view."""
        if view is None:
            return None
        (reply,) = self.replica.handle([messages.Fetch(_ROUND, view.id, [place])])
        return reply if isinstance(reply, Fetched) else None

    def tells_alone(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields the keys whose values are told alone, and the values without their versions."""
        pairs = [(key, record) for key, record in self.store.scan(layout.RECORD) if records.holds_value(record)]
        for index in self.replica.settled.select([key for key, _ in pairs]):
            key, record = pairs[index]
            yield key, records.sealed_of(record)


def notices(request: Put, decision: object, view: View) -> list[Settle]:
    """The notices that a coordinator sends to all replicas after a write round with this decision."""
    sent: list[Settle] = []
    later: list[Callable[[], None]] = []

    def send(outgoing: Outgoing, _: object) -> None:
        assert isinstance(outgoing.request, Settle)
        sent.append(outgoing.request)

    teller = SettleNotices(cast("Any", {"": SimpleNamespace(send=send)}), lambda: view, lambda _, call: later.append(call))
    observer = SimpleNamespace(committed=teller.committed, fence_retried=lambda: None, left_over=lambda: None)
    exchange = SimpleNamespace(watch_missed=lambda _: None, watch_left_over=lambda _: None)
    Coordinator._tell(cast("Any", SimpleNamespace(observer=observer)), request, decision, cast("Any", exchange), [])
    for call in later:
        call()
    return sent
