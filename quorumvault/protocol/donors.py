"""Donors: disks that have no vote any more, and still have what they acknowledged.

A record never changes, so a disk that a newer view left out, or that was set aside, is a rightful source of records, registers
and revoked keys for whoever unites disks: a joining disk (join.py), `quorumvault recover`. What it has was acknowledged, or at
least attempted. It has no **voice**: it decides nothing about what it lacks.

Whoever unites disks has to have all that was acknowledged. That is on two of the three disks of a view, so two of them that can
be read have it between them. And so it is for each **part** of a store by itself: the registers, the revoked keys, the names,
each bucket of records. Three disks with damage in different parts have everything; what two of three cannot read may be gone.

A donor may **stand in** as one of the three:

- if the view still lists it: nobody has its slot yet;
- or if the view that followed its own gave its slot to the disk that joins now, and this one never voted. What was acknowledged
  in the donor's view is on two of the old three. What was acknowledged since is on both others, the only ones that vote.

And only if it forgot nothing: both others remember it, and no more of it than it holds. They keep the marks of disks that left
the view until all three are active, so a disk that voted in between is remembered too, and then the donor does not stand in.

Rules kept here: donors have no voice.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from quorumvault.model import QUORUM
from quorumvault.protocol.rollback_marks import Mark, Marks, contradicts
from quorumvault.protocol.views import View, successor


@dataclass(frozen=True, slots=True)
class Donor:
    """A disk that was active in ``view``, as its node's. ``mark``: how far it came; nobody writes to it now."""

    node: str
    disk: bytes
    view: View
    mark: Mark


def stands_in(donor: Donor, view: View, remembered: Iterable[Marks]) -> bool:
    """True if the donor counts as one of three beside the two others of ``view``, who remember these marks of disks.

    The caller knows that the disk which has the donor's slot in ``view``, if it is another one, never voted.
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
    """The parts that fewer than two of these disks can read. ``gaps``: of each disk, where the parts end that it cannot."""
    return {end for ends in gaps for end in ends if sum(end not in others for others in gaps) < QUORUM}
