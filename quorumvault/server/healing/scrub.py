"""Scrub: every record on disk is read again within a configured time, and is what was sealed for its place or is unknown.

    found                                        then
    bytes that are not authentic                 read from both others; what those have takes their place (rule 11)
    a block that fails its checksum              the store cannot be trusted
    a record that a look-up does not find, or    the same: a filter or an index in memory has gone bad, or a table
    one less than was written

A store that cannot be trusted goes on while a peer is away: what it cannot read is unknown and never absent, and that is better
than one replica less. Once both peers are active, its node gives the disk up and ends (exit 3), and the next start sets it
aside and rejoins. That takes two others whose stores can be read whole, and room for another one beside this. So a node with such
a store says so in its facts as soon as it knows, waits until the others must have heard it, and stays as it is while one of them
says the same: between the two all can be read. Should two give up all the same, nothing false is said: a disk set aside does not
vote, and requests are refused until one of the two stores is put back.

Rules kept here: a distrusted store stops; scrub.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from quorumvault.protocol.anti_entropy import MergeRecords, batches
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import Fetch, Fetched
from quorumvault.server.healing.anti_entropy import merge_records
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.replica.inventory import Findings
from quorumvault.server.replica.replica import Replica

logger = logging.getLogger("quorumvault.healing")


class Neighbours(NamedTuple):
    """Whether both peers are active within reach, and the names of those whose stores are damaged too."""

    all_active: bool
    damaged: frozenset[str]


class ScrubCounts:
    """Since the start: records looked over, those that were not authentic, those of them that were replaced, whole passes."""

    def __init__(self) -> None:
        self.checked = 0
        self.corrupt = 0
        self.mended = 0
        self.passes = 0


class Scrub:
    """Used on the event loop's thread.

    ``seconds`` is the duration of a pass over all records, if ``throttle`` allows that. ``announce`` is called when there is
    ``damage``; ``heard_after`` seconds later each peer has heard of it, or lost this node. ``give_up(why)`` must end the process.
    ``room_beside`` returns whether another store of this size fits on the disk.
    """

    def __init__(
        self,
        peers: Collection[str],
        replicas: ReplicaClient,
        storage: Storage,
        throttle: Throttle,
        neighbours: Callable[[], Neighbours],
        room_beside: Callable[[], bool],
        *,
        seconds: float,
        heard_after: float,
        announce: Callable[[], None],
        give_up: Callable[[str], None],
        passed: Callable[[ScrubCounts], None],
    ) -> None:
        self._peers = peers
        self._replicas = replicas
        self._storage = storage
        self._throttle = throttle
        self._neighbours = neighbours
        self._room_beside = room_beside
        self._seconds = seconds
        self._heard_after = heard_after
        self._announce = announce
        self._give_up = give_up
        self._passed = passed
        self._bucket = 0
        self._due = 0.0
        self._unmended: set[bytes] = set()
        #: Since when both peers are active, while there is damage.
        self._together: float | None = None
        self.counts = ScrubCounts()
        #: Why the store cannot be trusted, if that is so.
        self.damage: str | None = None

    @property
    def problem(self) -> str | None:
        """Words for /health; None while nothing is wrong."""
        if self.damage is None:
            return None
        return (
            f"this node's store is damaged: {self.damage}. What cannot be read here is read from the others; it is replaced when "
            f"both others are active and undamaged, and there is room for another one beside it"
        )

    def until_due(self, at_most: float) -> float:
        """Seconds until the next slice."""
        return min(at_most, max(self._due - asyncio.get_running_loop().time(), 0.0))

    async def once(self) -> None:
        """A slice if one is due; and what follows from what it, or reads, have found."""
        await self._notice_reads()
        self._consider_giving_up()
        now = asyncio.get_running_loop().time()
        if now >= self._due:
            began = self._throttle.begin()
            first = self._bucket
            findings = await on_storage_thread(self._storage, lambda replica: replica.inventory.inspect(first))
            self._note(findings)
            self._due = max(self._due, now - 1.0) + self._seconds * (findings.next - first) / BUCKETS
            self._bucket = findings.next % BUCKETS
            if self._bucket == 0:
                self.counts.passes += 1
                self._passed(self.counts)
            await self._throttle.rest(began)
        await self._mend()

    def _note(self, findings: Findings) -> None:
        self.counts.checked += findings.checked
        fresh = set(findings.rotten) - self._unmended
        self.counts.corrupt += len(fresh)
        self._unmended |= fresh
        if findings.damage is not None:
            self._distrust(findings.damage)

    async def _notice_reads(self) -> None:
        if await on_storage_thread(self._storage, lambda replica: replica.corrupt_reads):
            self._distrust("a block of its store fails its checksum")

    def _distrust(self, damage: str) -> None:
        if self.damage is None:
            logger.critical("this node's store cannot be trusted: %s; it is given up once both peers are active", damage)
            self.damage = damage
            self._announce()

    def _consider_giving_up(self) -> None:
        if self.damage is None:
            return
        neighbours, now = self._neighbours(), asyncio.get_running_loop().time()
        if not neighbours.all_active:
            self._together = None
        elif self._together is None:
            self._together = now
        elif now - self._together > self._heard_after and not neighbours.damaged and self._room_beside():
            self._give_up(self.damage)

    async def _mend(self) -> None:
        """Rule 11: unknown until read from both others."""
        for batch in batches(sorted(self._unmended)):
            answers = []
            for node in self._peers:
                answer = await self._replicas.ask(node, lambda round_id, view: Fetch(round_id, view, batch))  # noqa: B023
                if not isinstance(answer, Fetched):
                    raise NoAnswer(f"{node} answered something else")
                answers.append(answer)
            looked_up = batch[: min(len(answer.records) for answer in answers)]
            heard = [_told(looked_up, answer) for answer in answers]
            self.counts.mended += await on_storage_thread(self._storage, lambda replica: _replace(replica, looked_up, heard))  # noqa: B023
            self._unmended.difference_update(looked_up)


def _told(places: list[bytes], answer: Fetched) -> MergeRecords:
    found = zip(places, answer.records, strict=False)
    return MergeRecords(answer.names, {place: record for place, record in found if record is not None})


def _replace(replica: Replica, places: Sequence[bytes], heard: Sequence[MergeRecords]) -> int:
    """How many of these are authentic then. What a peer has is judged by itself: rotten bytes are no value (rule 11)."""
    for told in heard:
        merge_records(replica, told)
    return replica.inventory.authentic_at(places)
