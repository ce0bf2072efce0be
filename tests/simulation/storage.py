"""The storage of a simulated process: the real queue of group commit, its bounds and its groups, without its thread.

A group is handled once the group before it is synced. Its reads are answered at once; the sync of its other requests takes
virtual time, and their answers follow it. The real thread works in parallel with the event loop; this is not simulated: a
group is handled in one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quorumvault.config.limits import Limits
from quorumvault.errors import StorageFailed
from quorumvault.protocol.messages import AnyRequest
from quorumvault.protocol.peer import OnReply
from quorumvault.server.replica.group_commit import GroupCommit, _Entry, parts_of
from quorumvault.server.replica.replica import OwnWork, Replica

if TYPE_CHECKING:
    from tests.simulation.nodes import Process

#: The least seconds that a sync takes on a good disk, and the most that it takes beyond that.
_SYNC, _SYNC_SPREAD = 0.0005, 0.004

#: The requests of a group, each with its reply.
Answers = Sequence[tuple[_Entry, Any]]


class Storage(GroupCommit):
    def __init__(self, process: Process, replica: Replica, limits: Limits) -> None:
        self._process = process
        #: True from the beginning of a group until it is answered.
        self._busy = False
        super().__init__(replica, process.schedule, limits, _raise)

    def _begin(self) -> None:
        """Does nothing: there is no thread."""

    def submit(self, request: AnyRequest | OwnWork, on_reply: OnReply) -> None:
        super().submit(request, lambda reply: self._hear(on_reply, reply))
        self._go_on()

    def _hear(self, on_reply: OnReply, reply: Any) -> None:
        """Passes a reply on. A process that died in the middle of its answers gives no more. An error in one fails the run."""
        schedule = self._process.schedule
        if not schedule.alive:
            return
        try:
            on_reply(reply)
        except Exception as error:
            self._process.node.timeline.at(schedule.time(), None, _raise, error)

    def _go_on(self) -> None:
        while not self._busy and self._process.schedule.alive and not self._entries.empty():
            self._handle()

    def _handle(self) -> None:
        self._busy = True
        group = self._next_group()
        node = self._process.node
        node.branches["groups of several requests"] += len(group) > 1
        for part in parts_of(group):
            if not self._process.schedule.alive:
                return
            try:
                replies = self.replica.handle([entry.request for entry in part])
            except StorageFailed as failure:
                self._process.disk.failed(failure)
                node.branches["stopped by its disk"] += 1
                node.end(self._process)
                return
            answers = list(zip(part, replies, strict=True))
            if self._process.disk.unsynced:  # the last part: reads leave nothing to sync
                self._sync(answers)
                return
            self._answer(answers)
        self._busy = False

    def _sync(self, answers: Answers) -> None:
        node = self._process.node
        seconds = _SYNC + node.rng.random() * (_SYNC_SPREAD + self._process.disk.slow)
        node.timeline.at(node.timeline.now + seconds, self._process.schedule, self._synced, answers)

    def _synced(self, answers: Answers) -> None:
        self._process.disk.sync()
        self._answer(answers)
        self._busy = False
        self._go_on()

    def _answer(self, answers: Answers) -> None:
        self._deliver([entry for entry, _ in answers], [reply for _, reply in answers])


def _raise(error: BaseException) -> None:
    raise error
