"""Scrub: reads every record on disk again within a configured time; a record is either authentic for its place, or unknown.

    the scrub finds                              the node then
    bytes that are not authentic                 reads the record from both peers, and stores their record
    a block that fails its checksum              no longer trusts the store
    a record that a look-up does not find, or    no longer trusts the store: a filter or an index in memory has gone bad,
    fewer records than were written              or a table

A distrusted store stays in use while a peer is away: what it cannot read is unknown, never absent, and that is better than one
replica less. Once both peers are active, and there is room for another store beside it, the node ends (exit 3). The next start
salvages what can be read (storage/salvage.py), and comparisons bring the rest from the peers. A store that does not hold what was
written to it, or whose registers cannot be read, is replaced (join.py), which needs both other disks to be complete.

While a peer's disk is joining, which needs a readable store on this node, this store is salvaged too: this costs seconds without
a quorum, after which the joining disk can continue.

The node tells its peers at once, and waits until they must have heard. If a peer tells the same and has the smaller name, that
peer goes first: two nodes away at once would be an outage of seconds. Even then no answer would be false.

Rules kept here: a distrusted store stops; scrub.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quorumvault.protocol.anti_entropy import MergeRecords, batches
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import Fetch, Fetched
from quorumvault.server.healing.anti_entropy import merge_records
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.replica.inventory import Findings
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage.leveldb import UNREADABLE

logger = logging.getLogger("quorumvault.healing")


class Neighbours(NamedTuple):
    """``all_active``: both peers are reachable and active. ``damaged``: the names of the peers whose stores are damaged.

    ``one_joins``: both peers are reachable, one is active, and the other's disk is joining, for which it needs this disk.
    """

    all_active: bool
    damaged: frozenset[str]
    one_joins: bool = False


@dataclass
class ScrubCounts:
    """Since the start of the process: records read, records not authentic, those of them repaired; and whole passes."""

    checked: int = 0
    corrupt: int = 0
    mended: int = 0
    passes: int = 0


@dataclass(eq=False)
class Scrub:
    """Used on the event loop's thread.

    ``seconds`` is the duration of a pass over all records, if ``throttle`` allows that. ``announce`` is called when there is
    ``damage``; ``heard_after`` seconds later each peer has heard of it, or lost this node. ``give_up(why)`` must end the process.
    ``room_beside`` returns whether another store of this size fits on the disk.
    """

    peers: Collection[str]
    replicas: ReplicaClient
    storage: Storage
    throttle: Throttle
    neighbours: Callable[[], Neighbours]
    room_beside: Callable[[], bool]
    seconds: float
    heard_after: float
    announce: Callable[[], None]
    give_up: Callable[[str], None]
    passed: Callable[[ScrubCounts], None]

    def __post_init__(self) -> None:
        self._bucket = 0
        self._due = 0.0
        self._unmended: set[bytes] = set()
        #: When, on the loop's clock, both peers became active while there is damage; None while they are not.
        self._together: float | None = None
        self.counts = ScrubCounts()
        #: Why the store cannot be trusted; None while it can.
        self.damage: str | None = None

    @property
    def problem(self) -> str | None:
        """The problem in words, for /health; None while nothing is wrong."""
        if self.damage is None:
            return None
        return (
            f"this node's store is damaged: {self.damage}. What cannot be read here is read from the others. Once both others "
            f"are active, and there is room for another store beside it, this node ends, and its next start mends the store"
        )

    def until_due(self, at_most: float) -> float:
        """Returns the seconds until the next slice, or ``at_most``."""
        return min(at_most, max(self._due - asyncio.get_running_loop().time(), 0.0))

    async def once(self) -> None:
        """Read a slice if one is due, repair records that are not authentic, and consider giving up the disk."""
        await self._notice_reads()
        self._consider_giving_up()
        now = asyncio.get_running_loop().time()
        if now >= self._due:
            began = self.throttle.begin()
            first = self._bucket
            findings = await on_storage_thread(self.storage, lambda replica: replica.inventory.inspect(first))
            self._note(findings)
            self._due = max(self._due, now - 1.0) + self.seconds * (findings.next - first) / BUCKETS
            self._bucket = findings.next % BUCKETS
            if self._bucket == 0:
                self.counts.passes += 1
                self.passed(self.counts)
            await self.throttle.rest(began)
        await self._mend()

    def _note(self, findings: Findings) -> None:
        self.counts.checked += findings.checked
        fresh = set(findings.rotten) - self._unmended
        self.counts.corrupt += len(fresh)
        self._unmended |= fresh
        if findings.damage is not None:
            self._distrust(findings.damage)

    async def _notice_reads(self) -> None:
        if await on_storage_thread(self.storage, lambda replica: replica.corrupt_reads):
            self._distrust(UNREADABLE)

    def _distrust(self, damage: str) -> None:
        if self.damage is None:
            logger.critical("this node's store cannot be trusted: %s; it is given up once both peers are active", damage)
            self.damage = damage
            self.announce()

    def _consider_giving_up(self) -> None:
        if self.damage is None:
            return
        neighbours, now = self.neighbours(), asyncio.get_running_loop().time()
        if not (neighbours.all_active or (neighbours.one_joins and self.damage == UNREADABLE)):
            self._together = None
        elif self._together is None:
            self._together = now
        elif now - self._together > self.heard_after and self._has_its_turn(neighbours.damaged) and self.room_beside():
            self.give_up(self.damage)

    def _has_its_turn(self, damaged: Collection[str]) -> bool:
        """True if this node may end now. Salvage needs only an order among the nodes; a new copy needs both others complete."""
        return self.replicas.node < min(damaged, default="~") if self.damage == UNREADABLE else not damaged

    async def _mend(self) -> None:
        """Repair records that are not authentic. Such a record stays unknown until both peers have answered."""
        for batch in batches(sorted(self._unmended)):
            answers = []
            for node in self.peers:
                answer = await self.replicas.ask(node, lambda round_id, view: Fetch(round_id, view, batch))  # noqa: B023
                if not isinstance(answer, Fetched):
                    raise NoAnswer(f"{node} answered something else")
                answers.append(answer)
            looked_up = batch[: min(len(answer.records) for answer in answers)]
            heard = [_told(looked_up, answer) for answer in answers]
            self.counts.mended += await on_storage_thread(self.storage, lambda replica: _replace(replica, looked_up, heard))  # noqa: B023
            self._unmended.difference_update(looked_up)


def _told(places: list[bytes], answer: Fetched) -> MergeRecords:
    found = zip(places, answer.records, strict=False)
    return MergeRecords(answer.names, {place: record for place, record in found if record is not None})


def _replace(replica: Replica, places: Sequence[bytes], heard: Sequence[MergeRecords]) -> int:
    """Replace records. Returns how many places then hold authentic ones. A peer's rotten bytes count as no record."""
    for told in heard:
        merge_records(replica, told)
    return replica.inventory.authentic_at(places)
