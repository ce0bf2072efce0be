"""Read repair before the answer: a record that only one of two replicas holds is written to the second before it is returned.

Without it a value that was returned once could be "not found" at the next read, which may ask the other two replicas (blocking
read repair, as in Cassandra; the write-back of Attiya, Bar-Noy, Dolev 1995). Repairs are exempt from the fence: what they write
back was written long ago, perhaps under an older epoch.

Three others take part: ``judge`` (read.py) decides which disk lacks what, ``_read_part`` (operations.py) reads, repairs and reads
again, and ``Replica._write_back`` (server/replica/replica.py) receives the records.

Rules kept here: read repair before the answer.
"""

from dataclasses import dataclass
from functools import partial

from quorumvault.model import Owner
from quorumvault.protocol.messages import UNSENT, Ack, RoundId, WriteBack
from quorumvault.protocol.read import ReadResult
from quorumvault.protocol.rounds import Lost, Round
from quorumvault.protocol.steps import Ask, Steps
from quorumvault.protocol.views import View


@dataclass(frozen=True, slots=True)
class Repaired:
    """The write-back is durable, but for the items at ``refused``, by index: something else was found there meanwhile."""

    refused: frozenset[int]


class RepairRound(Round[Ack, Repaired]):
    """Decides a WriteBack to one disk that lacked what another one of the same view holds."""

    _kind = Ack

    def __init__(self, round_id: RoundId, view: View, disk: bytes) -> None:
        super().__init__(round_id, view, disks=(disk,), needed=1)

    def _decision(self) -> Repaired | None:
        return Repaired(frozenset(self._replies[0].refused)) if self._replies else None


def write_back(owner: Owner, epochs: list[int], digests: list[bytes], read: ReadResult, unrepaired: set[bytes]) -> Steps[bool]:
    """Bring each record that only one replica held to a second one. Returns False if anything prevented it: read again.

    A disk that does not take a record, such as a full one, is added to ``unrepaired``: the two others can still settle it.
    """
    for disk, indices in read.repairs.items():
        request = WriteBack(
            *UNSENT,
            owner.name,
            [epochs[index] for index in indices],
            [digests[index] for index in indices],
            [record for index in indices if isinstance(record := read.records[index], bytes)],
        )
        decision = yield Ask(request, partial(RepairRound, disk=disk), disk=disk, view=read.view)
        if decision != Repaired(frozenset()):
            if isinstance(decision, Lost):
                unrepaired.add(disk)
            return False
    return True
