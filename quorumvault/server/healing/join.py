"""Makes a joining disk complete: drives protocol/join.py over real peers, the storage thread, and time.

The disk requests its copies piece by piece, with a rest after each (throttle.py): a piece takes a millisecond or two of the
source's storage thread, which handles requests in between. Coordinators' writes reach this disk meanwhile, but its
acknowledgements count only once it is active (rule: only active listed disks vote).

Rules kept here: read before the view changes.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from quorumvault.protocol import join
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.join import DONOR, Activate, Ask, Enter, Merge, Prepare, Progress, Replies, Survey, Unread, Wait
from quorumvault.protocol.messages import UNSENT, AnyReply, AnyRequest, AskView, Copied, Copy, NotCopied, RoundId, ViewIs
from quorumvault.protocol.peer import NoReply, Peer
from quorumvault.protocol.views import NO_DISK, View
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.old_disk import OldDisk
from quorumvault.server.healing.requests import Asked, NoAnswer, Storage, on_storage_thread
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity

logger = logging.getLogger("quorumvault.healing")

#: Seconds before the next attempt, if joining cannot continue.
_RETRY = 0.5
_FULL = "this node's disk is full"


@dataclass(eq=False)
class Rejoin:
    """Brings the disk with ``identity`` into the view. ``timeout`` is the time-out of a request, in seconds.

    ``prepare`` returns the storage thread of the disk, after replacing a lost disk (rule: a lost disk gets a new identity).
    ``marks`` are the rollback marks that the disk stores before it votes. ``has_room`` checks the file system while no store is
    on it. ``may_speak`` returns whether peers know this process as the one of its name (peers/standing.py). ``find_old`` looks
    for the disk that this disk replaces, on another thread.
    """

    identity: Callable[[], DiskIdentity]
    nonce: bytes
    peers: Mapping[str, Peer]
    prepare: Callable[[], Awaitable[Storage]]
    may_speak: Callable[[], bool]
    throttle: Throttle
    marks: RollbackMarks
    has_room: Callable[[], bool]
    timeout: float
    find_old: Callable[[], OldDisk | None] | None = None

    def __post_init__(self) -> None:
        self.progress = Progress()
        self._surveys: dict[str, _Survey] = {}
        self._old: OldDisk | None = None
        self._rounds = itertools.count(1)
        self._began = 0.0
        self._storage: Storage | None = None
        self._copied = _Copied()

    @property
    def records(self) -> int:
        """The number of records copied, from both other disks together."""
        return self._copied.records

    async def run(self) -> None:
        """Join, and return once the disk is active. Raises join.Displaced if another disk has taken its slot."""
        mine = self.identity()
        if self.find_old is not None:
            self._old = await asyncio.to_thread(self.find_old)
        with ExitStack() as ending:
            if self._old is not None:
                ending.callback(self._old.ending.close)
            donor = None if self._old is None else self._old.donor
            await drive(join.join(mine.node, mine.disk, mine.view, donor), self._take)
        self.progress = Progress()

    async def _take(self, step: join.Step) -> Replies:
        match step:
            case Ask():
                return await self._ask(step.nodes, step.request)
            case Survey():
                surveyed = {node: await self._survey(node, step.view) for node in step.nodes}
                return {node: found for node, found in surveyed.items() if found is not None}
            case Prepare():
                while not self.has_room():
                    self._show(waits_for=_FULL)
                    await pause(_RETRY)
                await self._disk()
            case Enter(view=view):
                await self._once_there_is_room(lambda replica: replica.enter(view))
                self._copied = _Copied()
            case Merge():
                await self._merge(step)
            case Activate(view=view):
                for disk, mark in step.marks.items():
                    self.marks.acknowledged(disk, mark)
                known = dict(self.marks.known)
                await self._once_there_is_room(lambda replica: replica.activate(view, known))
            case Wait(why=why, advice=advice):
                if self.progress.waits_for != why:
                    logger.log(
                        logging.WARNING if advice else logging.INFO,
                        "this node's disk is joining, and waits: %s",
                        why if advice is None else f"{why}. {advice}",
                    )
                self._show(waits_for=why, advice=advice)
                await pause(_RETRY)
        return {}

    async def _ask(self, nodes: tuple[str, ...], unsent: AnyRequest) -> dict[str, AnyReply]:
        """Ask all these nodes at once. Returns the replies by node, without the nodes that did not answer in time."""
        self._began = self.throttle.begin()
        if nodes == (DONOR,):
            return {} if self._old is None or not isinstance(unsent, Copy) else {DONOR: await self._old.copy(unsent)}
        if not self.may_speak():
            return {}
        asked = []
        for node in nodes:
            round_id = RoundId(self.identity().disk, self.nonce, next(self._rounds))
            request = unsent.sent_in(round_id, unsent.view)
            asked.append(Asked.sent(self.peers[node], NO_DISK, request, self.timeout))
        told: dict[str, AnyReply] = {}
        for each in asked:
            reply = await each.settled
            if not isinstance(reply, NoReply) and reply.round == each.request.round:
                told[each.node] = reply
        return told

    async def _survey(self, node: str, view: View) -> NotCopied | Unread | None:
        """Have the node read its store, from where an earlier survey ended, and report the parts that it cannot read.

        A store with unread parts is read anew once the first of these can be read. So is the store of a process that has just
        started, since it may have been salvaged. Returns None if the node did not answer, or was started meanwhile.
        """
        started = await self._start_of(node)
        if started is None:
            return None
        known = self._surveys.get(node)
        if known is None or known.of != started:
            known = self._surveys[node] = _Survey(started)
        if known.unread:
            reply = (await self._ask((node,), Copy(UNSENT[0], view.id, known.unread[0].after, only_read=True))).get(node)
            if isinstance(reply, Copied):
                known = self._surveys[node] = _Survey(started)
        while True:
            reply = (await self._ask((node,), Copy(UNSENT[0], view.id, known.after, only_read=True))).get(node)
            if isinstance(reply, NotCopied) and reply.end > known.after:
                known.unread.append(reply)
                known.after = reply.end
            elif isinstance(reply, Copied) and (node == DONOR or (reply.view, reply.disk) == (view.id, view.disks[node])):
                known.after = reply.keys[-1] if reply.keys else known.after
                if reply.last:
                    whole = await self._start_of(node) == started
                    return Unread(frozenset(part.end for part in known.unread)) if whole else None
            else:
                return NotCopied(*UNSENT, reply.disk) if isinstance(reply, NotCopied) else None
            await self.throttle.rest(self._began)

    async def _start_of(self, node: str) -> tuple[bytes, int] | None:
        """The node's disk and its incarnation, which each start raises; None without an answer. The old disk has neither."""
        if node == DONOR:
            return b"", 0
        reply = (await self._ask((node,), AskView(*UNSENT))).get(node)
        return (reply.disk, reply.mark.incarnation) if isinstance(reply, ViewIs) else None

    async def _merge(self, piece: Merge) -> None:
        """Write one piece to this disk, then rest, which reduces the load on both ends."""
        await self._once_there_is_room(lambda replica: replica.merge(piece.keys, piece.values) is not None)
        if piece.source != DONOR:
            self._copied.count(piece)
        self._show(waits_for=None)
        await self.throttle.rest(self._began)

    async def _disk(self) -> Storage:
        if self._storage is None:
            self._storage = await self.prepare()
        return self._storage

    async def _once_there_is_room(self, work: Callable[[Replica], bool]) -> None:
        while not await self._on_disk(work):
            self._show(waits_for=_FULL)
            await pause(_RETRY)

    async def _on_disk(self, work: Callable[[Replica], object]) -> object:
        """Returns the result of ``work``. Tries again while too much waits for the disk."""
        storage = await self._disk()
        while True:
            try:
                return await on_storage_thread(storage, work)
            except NoAnswer:
                await pause(_RETRY)

    def _show(self, *, waits_for: str | None, advice: str | None = None) -> None:
        view, copied = self.identity().view, self._copied
        number = None if view is None else view.number
        self.progress = Progress(number, copied.source, copied.records, copied.expected, waits_for, advice)


@dataclass(slots=True)
class _Survey:
    """How far a store was read, and the parts that could not be read. ``of``: the disk, and its incarnation."""

    of: tuple[bytes, int]
    after: bytes = b""
    unread: list[NotCopied] = field(default_factory=list)


class _Copied:
    """Counts the copied records and estimates their total: records spread evenly over the buckets, which come in order."""

    def __init__(self) -> None:
        self.source: str | None = None
        self.records = 0
        self.expected: int | None = None
        self._before = 0

    def count(self, piece: Merge) -> None:
        if piece.source != self.source:
            self.source, self._before = piece.source, self.records
        fresh = [key for key in piece.keys if key.startswith(layout.RECORD)]
        self.records += len(fresh)
        if fresh:
            share = (layout.bucket_of(fresh[-1]) + 1) / BUCKETS
            whole = round((self.records - self._before) / share)
            # Both copies have about as many records.
            self.expected = self._before + whole if self._before else 2 * whole
