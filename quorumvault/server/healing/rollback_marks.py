"""What this node remembers of the others' disks, and what it does when one of them remembers more of its own disk than is there.

    an acknowledgement, or a peer's facts  ──▶  remembered at once, told with the next ping, on disk within SOON
    a peer remembers more of this disk     ──▶  the disk is given up: it was put back from an older copy (protocol/marks.py)

A peer's facts are heard before the link to it counts as up, so before this process may vote (peers/standing.py): one peer that
remembers is enough. Used on the event loop's thread.

Rules kept here: rollback marks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorumvault.protocol.rollback_marks import NO_MARK, Mark, Marks, contradicts, grown
from quorumvault.protocol.views import View
from quorumvault.server.healing.requests import Storage
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import Job, Replica
from quorumvault.server.storage.data_directory import PUT_BACK

#: Seconds by which what was learnt is written later: one sync of a busy node is then for hundreds of acknowledgements.
SOON: Final = 0.1


class RollbackMarks:
    """``replica`` and ``storage``: of this node's disk, None while it has none. ``view``: the newest that this node knows.

    ``later(seconds, what)`` is the event loop's ``call_later``. ``give_up(why)`` is called at most once; ``why`` is one line.
    """

    def __init__(
        self,
        replica: Callable[[], Replica | None],
        storage: Callable[[], Storage | None],
        view: Callable[[], View | None],
        later: Callable[[float, Callable[[], None]], object],
        give_up: Callable[[str], None],
    ) -> None:
        self._replica = replica
        self._storage = storage
        self._view = view
        self._later = later
        self._give_up = give_up
        self._given_up = False
        self._due = False
        held = replica()
        self._known: dict[bytes, Mark] = {} if held is None else dict(held.remembered)

    @property
    def known(self) -> Marks:
        """By disk id, of the disks in the view."""
        return self._known

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        """That disk has it durably, and a coordinator counts on it."""
        held = self._known.get(disk, NO_MARK)
        if (new := grown(held, mark)) != held:
            self._known[disk] = new
            self._write_soon()

    def heard(self, facts: NodeFacts) -> None:
        """A peer says how far its disk is, and what it remembers of others."""
        replica, view = self._replica(), self._view()
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
            self._give_up(
                f"{PUT_BACK}: {peer} remembers write {remembered.sequence} of its start "
                f"{remembered.incarnation}, and it was at write {start.sequence} at its start {start.incarnation}"
            )

    def _write_soon(self) -> None:
        if not self._due:
            self._due = True
            self._later(SOON, self.write)

    def write(self) -> None:
        """To this node's disk, now. Disks that left the view vote no more, whatever they hold, and are forgotten."""
        self._due = False
        view, storage = self._view(), self._storage()
        if view is not None:
            self._known = {disk: mark for disk, mark in self._known.items() if view.lists(disk)}
        if storage is None:
            return  # a new disk gets them before it votes (Replica.activate)
        marks = dict(self._known)
        storage.submit(Job(lambda replica: replica.remember(marks)), self._written)

    def _written(self, outcome: object) -> None:
        """True from the replica. There is no room for it otherwise, or too much waits for the disk: then again, soon."""
        if outcome is not True:
            self._write_soon()
