"""Rollback marks: each node remembers how many writes the other disks had, to detect a disk restored from an older copy.

    an acknowledgement, or a peer's facts  ──▶  the mark rises at once, is told with the next ping, and is on disk within SOON
    a peer's mark of this disk is higher   ──▶  this disk is given up: it was restored (protocol/rollback_marks.py)

This node hears a peer's facts before the link to the peer counts as up, and so before this process may vote (peers/standing.py).
One peer that remembers the disk is therefore enough. Used on the event loop's thread.

Rules kept here: rollback marks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from quorumvault.protocol.rollback_marks import NO_MARK, Mark, Marks, contradicts, grown
from quorumvault.protocol.views import View
from quorumvault.server.healing.requests import Storage
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import OwnWork, Replica
from quorumvault.server.storage.data_directory import PUT_BACK

#: Seconds until a raised mark is written. On a busy node one sync then serves hundreds of acknowledgements.
SOON: Final = 0.1
#: Most marks kept of disks that have left the view.
_MOST_LEFT: Final = 8


@dataclass(eq=False)
class RollbackMarks:
    """The marks that this node holds. Marks only grow, so a stale mark is still a valid lower bound.

    ``replica`` and ``storage`` return None while this node has no disk; ``view`` returns the newest view that it knows.
    ``later(seconds, what)`` is the event loop's ``call_later``. ``give_up(why)`` is called at most once; ``why`` is one line.
    ``whole`` returns whether all disks of the view are active. ``lost_with``: the marks stored on a disk that this node has lost.
    """

    replica: Callable[[], Replica | None]
    storage: Callable[[], Storage | None]
    view: Callable[[], View | None]
    later: Callable[[float, Callable[[], None]], object]
    give_up: Callable[[str], None]
    whole: Callable[[], bool] = lambda: True
    lost_with: Marks = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._given_up = False
        self._due = False
        held = self.replica()
        self._known: dict[bytes, Mark] = dict(self.lost_with if held is None else held.remembered)

    @property
    def known(self) -> Marks:
        """The marks of the disks in the view, by disk id."""
        return self._known

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        """Note that the disk durably has a write, and that a coordinator counts its acknowledgement."""
        held = self._known.get(disk, NO_MARK)
        if (new := grown(held, mark)) != held:
            self._known[disk] = new
            self._write_soon()

    def heard(self, facts: NodeFacts) -> None:
        """Take a peer's facts: the mark of its own disk, and its marks of other disks."""
        replica, view = self.replica(), self.view()
        if replica is not None and (remembered := facts.marks.get(replica.identity.disk)) is not None:
            self._compare(replica, remembered, facts.node)
        if view is None:
            return
        for disk, mark in ((facts.disk, Mark(facts.incarnation, facts.sequence)), *facts.marks.items()):
            if view.lists(disk) and (replica is None or disk != replica.identity.disk):
                self.acknowledged(disk, mark)

    def _compare(self, replica: Replica, remembered: Mark, peer: str) -> None:
        start, sequence = replica.start, replica.sequence
        if contradicts(remembered, start, sequence) and not self._given_up:
            self._given_up = True
            self.give_up(
                f"{PUT_BACK}: {peer} remembers write {remembered.sequence} of its start "
                f"{remembered.incarnation}, and it was at write {start.sequence} at its start {start.incarnation}"
            )

    def _write_soon(self) -> None:
        if not self._due:
            self._due = True
            self.later(SOON, self.write)

    def write(self) -> None:
        """Replace the stored marks now, without those of disks that have left the view: such a disk never votes again.

        While a disk of the view is not active, a disk that has left may still be needed, and must be told from an older copy of
        itself (protocol/donors.py). If more than a few disks have left, no one can tell which was the last.
        """
        self._due = False
        view, storage = self.view(), self.storage()
        if view is not None:
            left = [disk for disk in self._known if not view.lists(disk)]
            if len(left) > _MOST_LEFT or self.whole():
                self._known = {disk: mark for disk, mark in self._known.items() if view.lists(disk)}
        if storage is None:
            return  # a new disk stores them before it votes (Replica.activate)
        marks = dict(self._known)
        storage.submit(OwnWork(lambda replica: replica.remember(marks)), self._written)

    def _written(self, outcome: object) -> None:
        """``outcome`` is True if the marks are stored. Without room on the disk, or in its queue, try again soon."""
        if outcome is not True:
            self._write_soon()
