"""The fence: a tokenize that begins after a rotate was answered never gives a token of an older epoch.

Every batch of writes carries its epoch. A replica compares it with the owner's register and writes in one critical section: if
the register is larger, the replica refuses the batch (Stale); if it is smaller, the replica raises it first. Rotations and writes
both need two of the three replicas, so they meet in at least one replica. The fence takes one round trip, no lease and no clock.

``Replica._put`` (server/replica/replica.py) compares and refuses. For a batch of settled values, which writes nothing, the first
vote is that of ``Replica._get_settled``. The write round (write.py) turns a Stale into ``Adopt``; then ``tokenize``
(operations.py) derives the batch again for the adopted epoch and retries.

Rules kept here: the fence; one secret per epoch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Register:
    """An owner's active epoch, and the id of the master secret that the epoch uses."""

    epoch: int
    secret: str


def refuses(mine: Register, theirs: Register) -> bool:
    """True if a replica whose register is ``mine`` refuses a write under ``theirs``, because that epoch is past.

    A write to the same epoch under another master secret is refused as well: it would give one value two tokens (rule: one
    secret per epoch).
    """
    return mine.epoch > theirs.epoch or (mine.epoch == theirs.epoch and mine.secret != theirs.secret)
