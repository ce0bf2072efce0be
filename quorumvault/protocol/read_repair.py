"""Read repair before the answer: a record that only one of two replicas holds is written to the second before it is returned.

Without read repair, a value that was returned once could be "not found" at the next read, which may ask the other two replicas
(blocking read repair, as in Cassandra; the write-back of Attiya, Bar-Noy, Dolev 1995). Repairs are exempt from the fence, because
their records were written long ago, perhaps under an older epoch.

Three other functions take part: ``judge`` (read.py) decides which disk lacks which record, ``_read_part`` (operations.py) reads,
repairs and reads again, and ``Replica._write_back`` (server/replica/replica.py) receives the records.

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
    """The write-back is durable, except for the items at the indices in ``refused``: the disk holds another record there now."""

    refused: frozenset[int]


class RepairRound(Round[Ack, Repaired]):
    """Decides a WriteBack to one disk that lacked records of another disk of the same view."""

    _kind = Ack

    def __init__(self, round_id: RoundId, view: View, disk: bytes) -> None:
        super().__init__(round_id, view, disks=(disk,), needed=1)

    def _decision(self) -> Repaired | None:
        return Repaired(frozenset(self._replies[0].refused)) if self._replies else None


def write_back(owner: Owner, epochs: list[int], digests: list[bytes], read: ReadResult, unrepaired: set[bytes]) -> Steps[bool]:
    """Write each record that only one replica held to a second one. Returns False if that failed: read again.

    A disk that does not take a record, such as a full disk, is added to ``unrepaired``: the two others can still settle the read.
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
