"""A joining disk becomes whole: drives protocol/join.py over real peers, the storage thread, and time.

The copy is asked for piece by piece, with a rest after each (throttle.py): a piece takes a millisecond or two of the source's
storage thread, which handles requests in between. Coordinators' writes reach this disk meanwhile, but its acknowledgements count
only once it is active (only active listed disks vote).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping

from quorumvault.protocol import join
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.join import Activate, Ask, Enter, Merge, Prepare, Progress, Replies, Wait
from quorumvault.protocol.messages import AnyReply, Outgoing, RoundId
from quorumvault.protocol.peer import NoReply, OnReply, Peer
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.requests import NoAnswer, Storage, on_storage_thread
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity

logger = logging.getLogger("quorumvault.healing")

#: Seconds before it asks again, when it could not go on.
_RETRY = 0.5
_FULL = "this node's disk is full"


class Rejoin:
    """``identity``: of the disk that joins. ``prepare``: rule 6, gives the storage thread of a disk that is there for good.

    ``marks``: of the others' disks; this disk stores them before it votes. ``has_room``: on the disk, before there is a
    store on it. ``may_speak``: whether peers know this process as the one of its name (peers/standing.py). ``timeout``: of a
    question, in seconds.
    """

    def __init__(
        self,
        identity: Callable[[], DiskIdentity],
        nonce: bytes,
        peers: Mapping[str, Peer],
        prepare: Callable[[], Awaitable[Storage]],
        may_speak: Callable[[], bool],
        throttle: Throttle,
        marks: RollbackMarks,
        has_room: Callable[[], bool],
        *,
        timeout: float,
    ) -> None:
        self.progress = Progress()
        self._identity = identity
        self._nonce = nonce
        self._peers = peers
        self._prepare = prepare
        self._may_speak = may_speak
        self._throttle = throttle
        self._marks = marks
        self._has_room = has_room
        self._timeout = timeout
        self._rounds = itertools.count(1)
        self._began = 0.0
        self._storage: Storage | None = None
        self._copied = _Copied()

    @property
    def records(self) -> int:
        """How many have been copied, from both others."""
        return self._copied.records

    async def run(self) -> None:
        """Until the disk is active. Raises join.Displaced."""
        mine = self._identity()
        await drive(join.join(mine.node, mine.disk, mine.view), self._take)
        self.progress = Progress()

    async def _take(self, step: join.Step) -> Replies:
        match step:
            case Ask():
                return await self._ask(step)
            case Prepare():
                while not self._has_room():
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
                    self._marks.acknowledged(disk, mark)
                known = dict(self._marks.known)
                await self._once_there_is_room(lambda replica: replica.activate(view, known))
            case Wait(why=why):
                if self.progress.waits_for != why:
                    logger.info("this node's disk is joining, and waits: %s", why)
                self._show(waits_for=why)
                await pause(_RETRY)
        return {}

    async def _ask(self, ask: Ask) -> Replies:
        """All at once; those that do not answer in time are left out."""
        if not self._may_speak():
            return {}
        loop = asyncio.get_running_loop()
        self._began = self._throttle.begin()
        waiting: dict[str, asyncio.Future[AnyReply | NoReply]] = {node: loop.create_future() for node in ask.nodes}
        timers = [loop.call_later(self._timeout, _settling(answer), NoReply(sent=True)) for answer in waiting.values()]
        rounds: dict[str, RoundId] = {}
        for node, answer in waiting.items():
            rounds[node] = RoundId(self._identity().disk, self._nonce, next(self._rounds))
            self._peers[node].send(Outgoing(ask.request.sent_in(rounds[node], ask.request.view)), _settling(answer))
        told: dict[str, AnyReply] = {}
        for node, answer in waiting.items():
            reply = await answer
            if not isinstance(reply, NoReply) and reply.round == rounds[node]:
                told[node] = reply
        for timer in timers:
            timer.cancel()
        return told

    async def _merge(self, piece: Merge) -> None:
        """One piece, and a rest for both ends."""
        await self._once_there_is_room(lambda replica: replica.merge(piece.keys, piece.values))
        self._copied.count(piece)
        self._show(waits_for=None)
        await self._throttle.rest(self._began)

    async def _disk(self) -> Storage:
        if self._storage is None:
            self._storage = await self._prepare()
        return self._storage

    async def _once_there_is_room(self, work: Callable[[Replica], bool]) -> None:
        while not await self._on_disk(work):
            self._show(waits_for=_FULL)
            await pause(_RETRY)

    async def _on_disk(self, work: Callable[[Replica], object]) -> object:
        """What the work returns; tried again while too much waits for the disk."""
        storage = await self._disk()
        while True:
            try:
                return await on_storage_thread(storage, work)
            except NoAnswer:
                await pause(_RETRY)

    def _show(self, *, waits_for: str | None) -> None:
        view, copied = self._identity().view, self._copied
        self.progress = Progress(None if view is None else view.number, copied.source, copied.records, copied.expected, waits_for)


class _Copied:
    """Counts what was copied, and reckons what there is. Records are spread evenly over the buckets, which come in order."""

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


def _settling(answer: asyncio.Future[AnyReply | NoReply]) -> OnReply:
    return lambda reply: None if answer.done() else answer.set_result(reply)
