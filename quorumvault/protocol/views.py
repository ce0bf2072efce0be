"""Views: which disks are the replicas.

A view is (number, the joining disk that brought it about, {node: disk}), ordered by (number, joiner). ``init`` writes view 1.
Replicas answer for their own view only; a coordinator whose view is refused learns the other one and starts its round again.
A disk is **active** and votes, or **joining** and does not, whatever it stores.

Why: a node that lost its disk must not vote "absent" for what its old disk acknowledged (protocol-aware recovery, Alagappan
et al., FAST '18; the same holds for wiped acceptors in CASPaxos, Rystsov 2018).

Rules kept here: views are ordered; only active listed disks vote; a view changes one slot; views spread from any peer; a
joiner proposes the next view.
"""

from enum import StrEnum

import msgspec

DISK_BYTES = 16
#: The joiner of the first view, which no disk joined.
NO_DISK = bytes(DISK_BYTES)

#: (number, joiner): names a view, and orders it.
ViewId = tuple[int, bytes]
#: Names no view, in requests for which it makes no difference in which view a disk is.
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
    """The view that a joining disk proposes, in which it has its node's slot."""
    return View(view.number + 1, disk, {**view.disks, node: disk})


def votes(disk: bytes, mode: Mode, view: View | None) -> bool:
    """True for an active disk that its own view lists: no other one votes."""
    return mode is Mode.ACTIVE and view is not None and view.lists(disk)


def may_enter(disk: bytes, current: View, proposed: View) -> bool:
    """True if ``proposed`` is larger, lists this disk, and differs from its current view in exactly one slot.

    One slot at a time, so that two views in a row share two disks, and what was committed in one is met in the next.
    """
    changed = [node for node in current.disks if proposed.disks.get(node) != current.disks[node]]
    same_nodes = proposed.disks.keys() == current.disks.keys()
    return proposed.id > current.id and proposed.lists(disk) and same_nodes and len(changed) == 1
