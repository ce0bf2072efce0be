"""Donors: disks that no longer vote, but still hold what they acknowledged.

A record never changes. So a disk that a newer view left out, or that was set aside, is a valid source of records, registers and
revoked keys for a joining disk (join.py) and for `quorumvault recover`. Everything on a donor was acknowledged, or at least
attempted. A donor has no **voice**: the absence of a record on it decides nothing.

Uniting disks must lose nothing that was acknowledged. Each acknowledged write is on two of the three disks of a view, so any two
readable disks have it between them. This holds for each **part** of a store by itself: the registers, the revoked keys, the
names, each bucket of records. Three disks with damage in different parts have everything; a part that two of the three cannot
read may be lost.

A donor may **stand in** as one of the three disks in two cases:

- the view still lists the donor: no other disk has its slot yet;
- the view after the donor's view gave its slot to the disk that joins now, and that disk never voted. Writes acknowledged in the
  donor's view are on two of the old three disks. Later writes are on both other disks, the only ones that vote.

In both cases the donor must have forgotten nothing: both other disks hold a mark of it, and no mark is ahead of it. They keep the
marks of disks that left the view until all three disks are active. So if another disk voted in between, its mark is still there,
and the donor does not stand in.

Rules kept here: donors have no voice.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from quorumvault.model import QUORUM
from quorumvault.protocol.rollback_marks import Mark, Marks, contradicts
from quorumvault.protocol.views import View, successor


@dataclass(frozen=True, slots=True)
class Donor:
    """A disk that was the active disk of ``node`` in ``view``. ``mark``: its last write; nobody writes to it now."""

    node: str
    disk: bytes
    view: View
    mark: Mark


def stands_in(donor: Donor, view: View, remembered: Iterable[Marks]) -> bool:
    """True if the donor counts as one of three, with the two other disks of ``view``, whose marks are ``remembered``.

    If another disk has the donor's slot in ``view``, the caller must know that this disk never voted.
    """
    holder = view.disks[donor.node]
    if donor.view.disks[donor.node] != donor.disk:
        return False
    if holder != donor.disk and view != successor(donor.view, donor.node, holder):
        return False
    for marks in remembered:
        mark = marks.get(donor.disk)
        if mark is None or contradicts(mark, donor.mark, donor.mark.sequence):
            return False
        if any(disk != donor.disk and not view.lists(disk) for disk in marks):
            return False
    return True


def unread(gaps: Sequence[Collection[bytes]]) -> set[bytes]:
    """The parts that fewer than two of the disks can read. ``gaps``: for each disk, the ends of the parts that it cannot read."""
    return {end for ends in gaps for end in ends if sum(end not in others for others in gaps) < QUORUM}
