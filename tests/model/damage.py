"""Damage in small worlds: a disk loses what it had under a key, is salvaged, and has a gap there until the gap is filled.

    salvaged     a block fails its checksum, and the next start copies the rest: the record is lost, or could still be read
    compared     two disks exchange what either lacks (protocol/anti_entropy.py)
    filled       a disk with a gap reads both others there (protocol/fill_gaps.py)

The scope says how many disks may have gaps at once. A disk whose gap was closed may be damaged again. The last copy of a
record that was acknowledged or seen is lost only if the scope says so. Then another value may take its place: no disk could know.

A gap is filled when all operations have ended that may have heard an earlier process of the disk: a node waits for that
(server/healing/fill_gaps.py). Here these operations end as the gap is filled, and messages that they sent may still arrive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quorumvault.protocol import anti_entropy
from quorumvault.protocol.anti_entropy import AskOne, Compared, MergeRecords, Unknown, WriteBackRecords
from quorumvault.protocol.fill_gaps import AskReplica, CloseBuckets, Filled, TakeRecords, fill_slice
from quorumvault.protocol.messages import AskListing, RoundId, WriteBack
from quorumvault.protocol.views import View
from quorumvault.server.healing.anti_entropy import merge_records
from quorumvault.server.healing.fill_gaps import close_gaps, take_records
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from tests.simulation.disks import Disk

_ROUND = RoundId(b"healing", b"", 0)


@dataclass(frozen=True)
class Damage:
    """``place``: the place of all records. ``gaps``: how many disks may have a gap at once. ``ends``: operations end, as above.

    ``all_lost``: even the last copy may be lost. ``apart``: anything may happen between reading one peer and reading the other.
    """

    place: bytes
    gaps: int = 1
    ends: bool = True
    all_lost: bool = False
    apart: bool = False

    @property
    def bucket(self) -> int:
        return layout.bucket_of(layout.RECORD + self.place)

    def salvage(self, disk: Disk, *, kept: bool) -> None:
        key = layout.RECORD + self.place
        record = disk.stored.get(key)
        disk.unreadable.add(key)
        disk.salvage()
        if kept and record is not None:
            disk.stored[key] = record

    def compare(self, mine: Replica, theirs: Replica, view: View) -> None:
        steps = anti_entropy._compare_listings(self.bucket, self.bucket + 1, Compared(), Unknown())
        sent: object = None
        try:
            while True:
                match step := steps.send(sent):
                    case AskOne(of_peer=of_peer, request=request):
                        (sent,) = (theirs if of_peer else mine).handle([request.sent_in(_ROUND, view.id)])
                    case MergeRecords():
                        sent = merge_records(mine, step)
                    case WriteBackRecords(places=places):
                        theirs.handle(list(_written_back(mine, places, view)))
                        sent = None
                    case _:
                        sent = None
        except StopIteration:
            return

    def fill(self, mine: Replica, before: Replica, peers: Sequence[Replica], view: View) -> None:
        """Fills the gap. ``before``: the first peer, as it was when it was listed."""
        steps = fill_slice(self.bucket, self.bucket + 1, Filled())
        sent: object = None
        try:
            while True:
                match step := steps.send(sent):
                    case AskReplica(of=of, request=request):
                        asked = (mine, before if isinstance(request, AskListing) else peers[0], peers[1])[of]
                        (sent,) = asked.handle([request.sent_in(_ROUND, view.id)])
                    case TakeRecords():
                        sent = take_records(mine, step)
                    case CloseBuckets():
                        close_gaps(mine, step.view, step.buckets)
                        sent = None
        except StopIteration:
            return


def _written_back(mine: Replica, places: list[bytes], view: View) -> Iterator[WriteBack]:
    """Write-backs as RecordSender sends them."""
    for owner, found in mine.inventory.collect(places).records.items():
        keys = [layout.parse_place(place) for place in found]
        epochs, digests = [epoch for _, epoch, _ in keys], [digest for *_, digest in keys]
        yield WriteBack(_ROUND, view.id, owner.name, epochs, digests, list(found.values()))
