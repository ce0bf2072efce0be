"""Faults: a plan drawn from the seed, in which each fault has its time, its place and its end.

Two sequences of faults run in parallel, so that faults also overlap. No fault here takes a disk away: synced data stays, or
rots. The faults that take a disk away are in losses.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import Message, Put, RaiseEpoch, WriteBack
from tests.simulation.network import Cut
from tests.simulation.nodes import Cluster, Node

#: For each sequence: the most seconds without a fault, and the most seconds of one fault.
_LINES = ((0.8, 1.2), (2.0, 2.5))
_HOUR_MS = 3_600_000
#: The message types of which a node may send a few before it dies.
_SENDING = (Message, Put, RaiseEpoch, RaiseEpoch, WriteBack)


@dataclass(frozen=True)
class Fault:
    """``dice`` decides everything else: the node, the number of sends, the record."""

    kind: str
    begins: float
    ends: float
    dice: int

    def __str__(self) -> str:
        return f"{self.begins:8.3f} to {self.ends:8.3f}  {self.kind} of {NODE_NAMES[self.dice % 3]}, dice {self.dice}"


Mend = Callable[[], object]


def plan(rng: Random, seconds: float) -> tuple[Fault, ...]:
    """Faults for this many seconds, in the order in which they begin."""
    kinds = [kind for kind, (_, weight) in KINDS.items() for _ in range(weight)]
    faults = []
    for calm, trouble in _LINES:
        now = rng.random() * calm
        while now < seconds:
            ends = now + 0.05 + rng.random() * trouble
            faults.append(Fault(rng.choice(kinds), now, ends, rng.getrandbits(24)))
            now = ends + rng.random() * calm
    return tuple(sorted(faults, key=lambda fault: fault.begins))


def begin(fault: Fault, cluster: Cluster) -> Mend:
    """Begins the fault. Returns a function that mends it."""
    node = cluster[NODE_NAMES[fault.dice % 3]]
    return KINDS[fault.kind][0](fault, node, cluster)


def mend_everything(cluster: Cluster) -> None:
    """Mends everything: all nodes run, on working disks and links."""
    for node in cluster.values():
        node.network.mend_all()
        node.disk.full, node.disk.nearly_full, node.disk.slow = False, False, 0.0
        if node.process is not None:
            node.process.disarm()
        node.go_on()
        node.start()


def _crash(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.crash()
    return node.start


def _crash_sending(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """The node dies between two messages of one round or of one group of replies: messages of any kind, or of one that writes."""
    if node.process is not None:
        kind = _SENDING[fault.dice // 9 % len(_SENDING)]
        node.process.arm(lambda message: isinstance(message, kind), fault.dice // 3 % 3)

    def mend() -> None:
        if node.process is not None:
            node.process.disarm()
        node.start()

    return mend


def _crash_all(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """All nodes die at once; or, by the dice, when the node next answers a client."""
    if fault.dice // 3 & 3:
        node.cuts_power = True
    else:
        node.cut_power()

    def start() -> None:
        node.cuts_power = False
        for each in cluster.values():
            each.start()

    return start


def _stop(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.stop()
    return node.go_on


def _partition(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """By the dice, cuts a node off from both others, a node from one other, or one direction of either."""
    others = [name for name in NODE_NAMES if name != node.name]
    choice = fault.dice // 3
    if choice & 1:
        others = [others[choice >> 1 & 1]]
    wires = [(node.name, other) for other in others] if choice & 4 else []
    if choice & 8 or not wires:
        wires += [(other, node.name) for other in others]
    how = Cut.DROPS if choice & 16 else Cut.HOLDS
    return node.network.cut(wires, how)


def _bad_network(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.network.misbehave()
    return node.network.behave


def _slow_disk(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """Makes a disk slow, or by the dice so slow that nobody waits for it."""
    node.disk.slow = 6.0 if fault.dice & 0x18 == 0 else 0.6
    return partial(setattr, node.disk, "slow", 0.0)


def _full_disk(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.disk.full = True

    def free() -> None:
        node.disk.full = False
        node.start()

    return free


def _nearly_full_disk(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """The disk refuses writes, but its node goes on. By the dice the next node's disk does so too, and nothing new is written."""
    disks = [node.disk]
    if fault.dice & 0x18 == 0:
        disks.append(cluster[NODE_NAMES[(fault.dice + 1) % 3]].disk)
    for disk in disks:
        disk.nearly_full = True

    def free() -> None:
        for disk in disks:
            disk.nearly_full = False

    return free


def _rot(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    """A block fails its checksum, or bits flip undetected by the checksum. No record gets flipped bits on two disks.

    Two disks with the same wrong bytes would be two votes for these bytes.
    """
    flipped = {key for other in cluster.values() if other is not node for key in other.disk.flipped}
    seen = bool(fault.dice & 0x80)
    node.disk.rot(fault.dice // 3, seen=seen, spared=() if seen else flipped)
    return lambda: None


def _clock_jump(fault: Fault, node: Node, cluster: Cluster) -> Mend:
    node.clock_error += _HOUR_MS if fault.dice & 8 else -_HOUR_MS
    return lambda: None


#: The kinds of faults, and the relative frequency of each.
KINDS: dict[str, tuple[Callable[[Fault, Node, Cluster], Mend], int]] = {
    "crash": (_crash, 3),
    "crash while sending": (_crash_sending, 6),
    "crash of all": (_crash_all, 3),
    "stop": (_stop, 2),
    "partition": (_partition, 5),
    "bad network": (_bad_network, 6),
    "slow disk": (_slow_disk, 2),
    "full disk": (_full_disk, 1),
    "nearly full disk": (_nearly_full_disk, 1),
    "rot": (_rot, 2),
    "clock jump": (_clock_jump, 1),
}
