"""The fence: no tokenize that began after a rotate was answered gives a token of an older epoch.

Every batch of writes carries its epoch. A replica compares it with the owner's register in one critical section with the write:
a larger register refuses the batch (Stale), a smaller one is raised first. Rotations and writes both need two of the three
replicas, so they meet in at least one of them. That takes one round trip, no lease and no clock.

``Replica._put`` (server/replica/replica.py) compares and refuses. Of its Stale the write round (write.py) makes ``Adopt``, for
which ``tokenize`` (operations.py) derives the batch again and retries.

Rules kept here: the fence; one secret per epoch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Register:
    """An owner's active epoch, and the id of the master secret that it uses."""

    epoch: int
    secret: str


def refuses(mine: Register, theirs: Register) -> bool:
    """True if a replica whose register is ``mine`` refuses a write under ``theirs``, because that epoch is past.

    An epoch under another secret than the one it was opened with would give one value two tokens (rule: one secret per
    epoch), so it is refused as well.
    """
    return mine.epoch > theirs.epoch or (mine.epoch == theirs.epoch and mine.secret != theirs.secret)
