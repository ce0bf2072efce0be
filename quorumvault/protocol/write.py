"""The write round: put records, guarded by the fence.

A batch is committed when two active replicas have acknowledged it in the round's view. A replica refuses a single item if it
holds other bytes under the item's key. Counting settles such an item: it is committed if two replicas took it, and it is a
collision if two replicas hold other bytes, because then it can never be on two. If one took it and one refused it, the round
waits for the third replica; without an answer from that one, the round is Lost.

Rules kept here: write-once; committed; a conflict never overwrites.
"""

from dataclasses import dataclass

from quorumvault.model import QUORUM
from quorumvault.protocol.messages import Ack, AnyReply, RoundId, Stale
from quorumvault.protocol.quorum import Outcome
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import View


@dataclass(frozen=True, slots=True)
class Committed:
    """Every item is on two replicas, except those at the indices in ``collided``: their tokens belong to other values."""

    collided: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Adopt:
    """A replica knows a later epoch (the fence), or this epoch under another secret. Derive the batch again for it and retry."""

    epoch: int
    secret: str


class WriteRound(Round[Ack, Committed | Adopt]):
    """Decides a Put.

    ``voted``: a disk whose vote that the fence lets the batch pass was given before, in the same view (messages.Settled). That
    vote is one of the two, so the round must not write anything: no disk has promised to.
    """

    _kind = Ack

    def __init__(self, round_id: RoundId, view: View, voted: bytes | None = None) -> None:
        others = [disk for disk in view.disks.values() if disk != voted]
        super().__init__(round_id, view, disks=others, needed=QUORUM - (len(view.disks) - len(others)))
        self._later = Adopt(0, "")

    def _note_refusal(self, reply: AnyReply) -> None:
        if isinstance(reply, Stale) and reply.epoch > self._later.epoch:
            self._later = Adopt(reply.epoch, reply.secret)

    def _decision(self) -> Committed | Adopt | None:
        if self._tally.outcome is Outcome.WON:
            collided = self._collided()
            if collided is not None:
                return Committed(collided)
        return self._later if self._later.epoch else None

    def _collided(self) -> frozenset[int] | None:
        """The indices of the items that can never be on two replicas; None while any item is open."""
        collided = []
        for index in {index for ack in self._replies for index in ack.refused}:
            refusals = [ack.refused[index] for ack in self._replies if index in ack.refused]
            if len(self._replies) - len(refusals) >= QUORUM:
                continue
            # An empty refusal means that the replica's record cannot be read: it counts neither as this value nor as another.
            if sum(map(bool, refusals)) < QUORUM:
                return None
            collided.append(index)
        return frozenset(collided)
