"""Views: which disks are the replicas.

A view is (number, the joining disk that proposed it, {node: disk}); views are ordered by (number, joiner). ``init`` writes view
1. Replicas answer for their own view only; a coordinator whose view is refused learns the replica's view and starts its round
again. A disk is either **active**, and votes, or **joining**, and does not vote, whatever it stores.

Views exist because a node that lost its disk must not vote "absent" for records that its old disk acknowledged (protocol-aware
recovery, Alagappan et al., FAST '18; the same holds for wiped acceptors in CASPaxos, Rystsov 2018).

Rules kept here: views are ordered; only active listed disks vote; a view changes one slot; views spread from any peer; a
joiner proposes the next view.
"""

from enum import StrEnum

import msgspec

DISK_BYTES = 16
#: The joiner of the first view, which no disk joined.
NO_DISK = bytes(DISK_BYTES)

#: (number, joiner): names a view, and orders views.
ViewId = tuple[int, bytes]
#: Names no view; for requests to which a disk's view makes no difference.
NO_VIEW: ViewId = (0, NO_DISK)


class Mode(StrEnum):
    ACTIVE = "active"
    JOINING = "joining"


class View(msgspec.Struct, frozen=True, array_like=True):
    number: int
    joiner: bytes
    disks: dict[str, bytes]

    @property
    def id(self) -> ViewId:
        return (self.number, self.joiner)

    def lists(self, disk: bytes) -> bool:
        return disk in self.disks.values()


def first_view(disks: dict[str, bytes]) -> View:
    return View(1, NO_DISK, disks)


def successor(view: View, node: str, disk: bytes) -> View:
    """The view that a joining disk proposes: ``view`` with the disk in its node's slot."""
    return View(view.number + 1, disk, {**view.disks, node: disk})


def votes(disk: bytes, mode: Mode, view: View | None) -> bool:
    """True if the disk is active and its own view lists it: no other disk votes."""
    return mode is Mode.ACTIVE and view is not None and view.lists(disk)


def may_enter(disk: bytes, current: View, proposed: View) -> bool:
    """True if ``proposed`` is larger, lists this disk, and differs from the disk's ``current`` view in exactly one slot.

    Only one slot may change, so that two consecutive views share two disks, and a quorum of the next view has every commit.
    """
    changed = [node for node in current.disks if proposed.disks.get(node) != current.disks[node]]
    same_nodes = proposed.disks.keys() == current.disks.keys()
    return proposed.id > current.id and proposed.lists(disk) and same_nodes and len(changed) == 1
