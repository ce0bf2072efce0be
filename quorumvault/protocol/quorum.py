"""Counting the answers of a round, once for each disk.

A tally is WON when a quorum has said yes. It is LOST as soon as a quorum is out of reach, without waiting for the time-out.
Until then it is PENDING. With N = 3 and two needed, any two quorums share a replica (Dynamo, SOSP '07; Attiya, Bar-Noy, Dolev
1995).

Rules kept here: a reply counts once.
"""

from collections.abc import Iterable
from enum import Enum

from quorumvault.model import QUORUM


class Outcome(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


class Tally:
    """The yes and no votes of the disks of one view. A disk's first answer stands; a disk outside the view has no vote."""

    def __init__(self, disks: Iterable[bytes], needed: int = QUORUM) -> None:
        self._open = set(disks)
        self._needed = needed
        self._yes = 0

    def vote(self, disk: bytes, *, yes: bool) -> bool:
        """Count a disk's answer. Returns False if the disk has answered before, or was not asked."""
        if disk not in self._open:
            return False
        self._open.remove(disk)
        self._yes += yes
        return True

    @property
    def pending(self) -> int:
        """The number of disks that have not answered."""
        return len(self._open)

    @property
    def outcome(self) -> Outcome:
        if self._yes >= self._needed:
            return Outcome.WON
        return Outcome.PENDING if self._yes + self.pending >= self._needed else Outcome.LOST
