"""A joining disk becomes whole: drives protocol/join.py over real peers, the storage thread, and time.

The copy is asked for piece by piece, with a rest after each (throttle.py): a piece takes a millisecond or two of the source's
storage thread, which handles requests in between. Coordinators' writes reach this disk meanwhile, but its acknowledgements count
only once it is active (rule: only active listed disks vote).
"""

import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from quorumvault.protocol import join
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.join import Activate, Ask, Enter, Merge, Prepare, Progress, Replies, Wait
from quorumvault.protocol.messages import AnyReply, RoundId
from quorumvault.protocol.peer import NoReply, Peer
from quorumvault.protocol.views import NO_DISK
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.requests import Asked, NoAnswer, Storage, on_storage_thread
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity

logger = logging.getLogger("quorumvault.healing")

#: Seconds before the next attempt, when the joining cannot go on.
_RETRY = 0.5
_FULL = "this node's disk is full"


@dataclass(eq=False)
class Rejoin:
    """Brings the disk with ``identity`` into the view. ``timeout`` is that of a request, in seconds.

    ``prepare`` returns the storage thread of the disk, after replacing a lost one (rule: a lost disk gets a new identity).
    ``marks`` are the rollback marks that the disk stores before it votes. ``has_room`` looks at the file system while there
    is no store on it. ``may_speak`` returns whether peers know this process as the one of its name (peers/standing.py).
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

    def __post_init__(self) -> None:
        self.progress = Progress()
        self._rounds = itertools.count(1)
        self._began = 0.0
        self._storage: Storage | None = None
        self._copied = _Copied()

    @property
    def records(self) -> int:
        """The number of records that were copied, from both others together."""
        return self._copied.records

    async def run(self) -> None:
        """Join, and return once the disk is active. Raises join.Displaced if another disk has taken its slot."""
        mine = self.identity()
        await drive(join.join(mine.node, mine.disk, mine.view), self._take)
        self.progress = Progress()

    async def _take(self, step: join.Step) -> Replies:
        match step:
            case Ask():
                return await self._ask(step)
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
            case Wait(why=why):
                if self.progress.waits_for != why:
                    logger.info("this node's disk is joining, and waits: %s", why)
                self._show(waits_for=why)
                await pause(_RETRY)
        return {}

    async def _ask(self, ask: Ask) -> Replies:
        """Ask all these nodes at once. Returns the replies by node, without the nodes that did not answer in time."""
        if not self.may_speak():
            return {}
        self._began = self.throttle.begin()
        asked = []
        for node in ask.nodes:
            round_id = RoundId(self.identity().disk, self.nonce, next(self._rounds))
            request = ask.request.sent_in(round_id, ask.request.view)
            asked.append(Asked.sent(self.peers[node], NO_DISK, request, self.timeout))
        told: dict[str, AnyReply] = {}
        for each in asked:
            reply = await each.settled
            if not isinstance(reply, NoReply) and reply.round == each.request.round:
                told[each.node] = reply
        return told

    async def _merge(self, piece: Merge) -> None:
        """Write one piece to this disk, then rest, which spares both ends."""
        await self._once_there_is_room(lambda replica: replica.merge(piece.keys, piece.values) is not None)
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
        """Returns what the work returns. Tries again while too much waits for the disk."""
        storage = await self._disk()
        while True:
            try:
                return await on_storage_thread(storage, work)
            except NoAnswer:
                await pause(_RETRY)

    def _show(self, *, waits_for: str | None) -> None:
        view, copied = self.identity().view, self._copied
        self.progress = Progress(None if view is None else view.number, copied.source, copied.records, copied.expected, waits_for)


class _Copied:
    """Counts the copied records and estimates their number: they are spread evenly over the buckets, which come in order."""

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
            # Both copies have about as many.
            self.expected = self._before + whole if self._before else 2 * whole
