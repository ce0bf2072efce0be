"""Faults that take a disk away for good: its node gets a new disk, which joins while clients ask and other faults happen.

    lost disk        a node dies with everything that it stored, and starts with an empty disk under a new id: after a while, or
                     at once, so that acknowledgements of the old disk are still under way
    replaced disk    the same, but the old process lives on with the old disk: it stands still, and goes on after a while
    broken join      the same as lost, and at a step of the join, which the dice choose, the joining node dies, or both
                     others, or all three, or one of the others: before any node has entered the new view, when one has, or both
    stale join       one of the other nodes has missed many messages when a node loses its disk; during the join the node that
                     missed nothing dies

No second disk is lost before the first has been replaced: two lost disks may have had the only copies of what was
acknowledged.
"""

from collections.abc import Callable
from random import Random

from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import AskView, Copied, Copy, Message, ProposeView, ViewIs
from quorumvault.protocol.views import DISK_BYTES, Mode, View
from tests.simulation import faults
from tests.simulation.faults import Fault, Mend
from tests.simulation.network import Cut
from tests.simulation.nodes import Cluster, Node

#: About when a disk is lost, and the most seconds for which its node is away then, or its old process stands still.
TIMES, _AWAY = (0.5, 2.5, 4.5, 6.0), 0.8
#: The steps of a join at which a node dies: a message type, the most messages of it, and whether the joining node sends them.
_STEPS: tuple[tuple[type[Message], int, bool], ...] = (
    (AskView, 4, True), (ProposeView, 2, True), (ViewIs, 1, False), (ViewIs, 1, False), (Copy, 6, True), (Copied, 4, False),
)  # fmt: skip

#: The share of dying joining nodes that lose the new disk too, so that nobody can continue the join.
_AGAIN = 0.5

#: Seconds in which a new process has asked for views, and nobody has copied anything yet.
_MOMENT = 0.002


def plan(rng: Random) -> tuple[Fault, ...]:
    kinds = tuple(LOSSES)
    begins = [at + rng.random() for at in TIMES]
    return tuple(Fault(rng.choice(kinds), at, at + rng.random() * _AWAY, rng.getrandbits(24)) for at in begins)


def begin(fault: Fault, cluster: Cluster) -> Mend:
    """Begins a loss, or calls faults.begin for any other kind."""
    loss = LOSSES.get(fault.kind)
    if loss is None:
        return faults.begin(fault, cluster)
    if not whole(cluster):
        return lambda: None
    node = cluster[NODE_NAMES[fault.dice % 3]]
    node.branches[fault.kind] += 1
    return loss(fault, node, cluster)


def whole(cluster: Cluster) -> bool:
    """Whether all disks are active, in one view."""
    identities = [node.identity for node in cluster.values()]
    return all(each.mode is Mode.ACTIVE and each.view == identities[0].view for each in identities)


def _new_disk(node: Node) -> bytes:
    """An id that no disk has had before."""
    return b"%s.%d" % (node.name.encode(), node.starts) + bytes(DISK_BYTES - len(f"{node.name}.{node.starts}"))


def _lost(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.lose_disk(_new_disk(node))
    if fault.dice // 3 & 1:
        node.start()
    return node.start


def _replaced(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """The old process stands still until the fault ends, or by the dice only for a moment."""
    old = node.leave_behind(_new_disk(node))
    node.start()

    def go_on() -> None:
        if old is not None and old.schedule.alive:
            old.schedule.go_on()

    if fault.dice // 3 & 1:
        node.timeline.at(node.timeline.now + _MOMENT, None, go_on)

    def mend() -> None:
        node.start()
        go_on()

    return mend


def _broken_join(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    others = [other for other in cluster.values() if other is not node]
    rng = Random(fault.dice)
    kind, most, joins = rng.choice(_STEPS)
    falling = rng.choice(((node,), others, others, (node, *others), (rng.choice(others),)))
    again = rng.random() < _AGAIN
    disk = _new_disk(node)
    node.lose_disk(disk)
    node.start()

    def counts(message: Message) -> bool:
        """Of ViewIs answers, counts only one which says that the new view was entered, and synced."""
        return isinstance(message, kind) and not (isinstance(message, ViewIs) and not _entered(message.current, disk))

    def fall() -> None:
        for armed_one in armed:
            armed_one.disarm()
        entered = sum(_entered(other.identity.view, disk) for other in others)
        dead = ", ".join("the joining node" if each is node else "another" for each in falling)
        node.branches[f"at {kind.__name__} of a join died {dead}; had entered: {entered}"] += 1
        for each in falling:
            each.crash()
        if node in falling and again and node.identity.mode is Mode.JOINING:
            node.lose_disk(_new_disk(node))

    armed = [each.process for each in ((node,) if joins else others) if each.process is not None]
    left = rng.randrange(most)
    for process in armed:
        process.arm(counts, left, fall)

    def mend() -> None:
        for process in armed:
            process.disarm()
        for each in cluster.values():
            each.start()

    return mend


def _stale_join(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    stale, knowing = Random(fault.dice).sample([other for other in cluster.values() if other is not node], 2)
    wires = [wire for other in (node, knowing) for wire in ((stale.name, other.name), (other.name, stale.name))]
    mend = node.network.cut(wires, Cut.DROPS)

    def lose() -> None:
        mend()
        if not whole(cluster):
            return
        node.lose_disk(_new_disk(node))
        node.start()
        back = node.timeline.now + _AWAY

        def fall() -> None:
            knowing.crash()
            node.timeline.at(max(back, node.timeline.now), None, knowing.start)  # a delayed join may reach this step late

        if node.process is not None:
            node.process.arm(lambda message: isinstance(message, Copy), fault.dice // 3 % 3, fall)

    return lose


def _entered(view: View | None, disk: bytes) -> bool:
    return view is not None and view.lists(disk)


LOSSES: dict[str, Callable[[Fault, Node, Cluster], Mend]] = {
    "lost disk": _lost,
    "replaced disk": _replaced,
    "broken join": _broken_join,
    "stale join": _stale_join,
}
