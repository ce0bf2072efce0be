"""Draws the plan of a run from a seed: which fault hits which node, and when. Pure functions; faults.py applies the plan.

A plan is a row of episodes, calm in between. In most of them one thing goes wrong; in some two or three do at the same time.
All of an episode is mended before the next one begins, and what is promised is never asked too much of: one disk at most loses
something in an episode, and each acknowledged record is on two. Kills, stops and cuts, full disks and failing syncs may take away
everything but what is on the disks.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from random import Random

from chaos.testbed.cluster import NODES

#: Bytes from one node to another. Both directions of a connection are two wires.
Wire = tuple[str, str]

#: The one node whose disk is small enough to be filled.
SMALL_DISK = "n3"
#: The number of faults in an episode: mostly one, so that its consequences can be told from others.
_MOSTLY_ONE = (1, 1, 1, 1, 1, 2, 2, 3)
#: The second and third fault of an episode begin within so many seconds of the first.
_STAGGER = 1.5


class Kind(Enum):
    """(name, family): one can be asked for by either."""

    KILL = ("kill", "kill")
    KILL_IN_MID_REQUEST = ("kill-in-mid-request", "kill")
    KILL_STARTING = ("kill-starting", "kill")
    KILL_ALL = ("kill-all", "all")
    PAUSE = ("pause", "pause")
    CUT_OFF = ("cut-off", "partition")
    ONE_WAY = ("one-way", "partition")
    ONE_TO_ONE = ("one-to-one", "partition")
    SLOW_LINKS = ("slow-links", "links")
    LOSSY_LINKS = ("lossy-links", "links")
    REPEATED_BYTES = ("repeated-bytes", "links")
    FULL_DISK = ("full-disk", "full")
    FAILING_SYNCS = ("failing-syncs", "syncs")
    SLOW_SYNCS = ("slow-syncs", "syncs")
    FLIPPED_TABLE = ("flipped-table", "flips")
    FLIPPED_LOG = ("flipped-log", "flips")
    TORN_LOG = ("torn-log", "torn")
    DISK_GONE = ("disk-gone", "gone")
    FEW_FILES = ("few-files", "files")
    CLOCK_JUMP = ("clock-jump", "clocks")
    REPLACED = ("replaced", "joins")
    CRASH_IN_VIEW_CHANGE = ("crash-in-view-change", "joins")
    DISKS_IN_TURN = ("disks-in-turn", "joins")
    OLDER_COPY = ("older-copy", "joins")
    AWAY_AMID_CUTS = ("away-amid-cuts", "joins")
    FLIPPED_AMID_CUTS = ("flipped-amid-cuts", "joins")

    def __init__(self, label: str, family: str) -> None:
        self.label = label
        self.family = family


#: Between nodes. One at a time: two would have to be taken apart again wire by wire.
NETWORK = frozenset({Kind.CUT_OFF, Kind.ONE_WAY, Kind.ONE_TO_ONE, Kind.SLOW_LINKS, Kind.LOSSY_LINKS, Kind.REPEATED_BYTES})
#: What a disk acknowledged is gone, or not known. One at a time: each acknowledged record is on two disks, and none need be more.
LOSING = frozenset({Kind.FLIPPED_TABLE, Kind.FLIPPED_LOG, Kind.TORN_LOG, Kind.DISK_GONE})
#: Faults after which a process may end by itself, with the exit code for a store that it cannot trust or use.
MAY_STOP = LOSING | {Kind.FULL_DISK, Kind.FAILING_SYNCS, Kind.FEW_FILES, Kind.AWAY_AMID_CUTS, Kind.FLIPPED_AMID_CUTS}
#: Faults of nodes that rejoin. Nothing else goes wrong meanwhile: each of them is several faults in one.
JOINS = frozenset(kind for kind in Kind if kind.family == "joins")
#: Seconds that these take at least, whatever the pace: what they do comes first, and then there is time to see what follows.
LEAST = {
    Kind.REPLACED: 9.0,
    Kind.CRASH_IN_VIEW_CHANGE: 9.0,
    Kind.DISKS_IN_TURN: 12.0,
    Kind.OLDER_COPY: 6.0,
    Kind.AWAY_AMID_CUTS: 8.0,
    Kind.FLIPPED_AMID_CUTS: 16.0,
}
EVERYWHERE = frozenset(
    {Kind.KILL_ALL, Kind.CRASH_IN_VIEW_CHANGE, Kind.DISKS_IN_TURN, Kind.AWAY_AMID_CUTS, Kind.FLIPPED_AMID_CUTS}
)
#: Faults that leave each node with a quorum; its answers only come later.
HARMLESS = frozenset({Kind.ONE_TO_ONE, Kind.SLOW_LINKS, Kind.CLOCK_JUMP})

FAMILIES = tuple(dict.fromkeys(kind.family for kind in Kind))


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, at least and at most: of calm between episodes, and of each thing that goes wrong. ``at_once``: how many do."""

    calm: tuple[float, float]
    trouble: tuple[float, float]
    at_once: tuple[int, ...] = _MOSTLY_ONE


#: A node that is silent counts as down after 2 s, and has 5 s to be back: less trouble and less calm would show neither.
BRISK = Pace((3.0, 4.0), (3.0, 4.0))
STEADY = Pace((5.5, 7.0), (4.0, 8.0))
LONG = Pace((5.5, 8.0), (4.0, 12.0), (1, 1, 1, 2, 2, 3))


@dataclass(frozen=True, slots=True)
class Fault:
    """``node`` is whom it is on, or from where links are looked at; ``wires`` are those that it cuts or disturbs.

    ``dice`` decides whatever the kind leaves open.
    """

    number: int
    kind: Kind
    begins: float
    ends: float
    node: str
    wires: frozenset[Wire]
    dice: int

    @property
    def on(self) -> tuple[str, ...]:
        """The nodes that cannot serve as they should because of it."""
        if self.kind in EVERYWHERE:
            return NODES
        return () if self.kind in HARMLESS else (self.node,)


def others(node: str) -> tuple[str, ...]:
    return tuple(name for name in NODES if name != node)


def both_ways(node: str, peers: Collection[str]) -> frozenset[Wire]:
    """The wires to cut so that a node and these peers do not hear each other."""
    return frozenset({(node, peer) for peer in peers} | {(peer, node) for peer in peers})


def unheard(node: str) -> frozenset[Wire]:
    """The wires to cut so that a node hears the others, and none hears it."""
    return frozenset((node, peer) for peer in others(node))


def deaf(node: str) -> frozenset[Wire]:
    """The wires to cut so that the others hear a node, and it hears none."""
    return frozenset((peer, node) for peer in others(node))


def wires_of(kind: Kind, node: str, dice: int) -> frozenset[Wire]:
    """Returns the wires that a fault of this kind is on; none unless it is a fault of the network."""
    match kind:
        case Kind.CUT_OFF | Kind.SLOW_LINKS | Kind.LOSSY_LINKS | Kind.REPEATED_BYTES:
            return both_ways(node, others(node))
        case Kind.ONE_WAY:
            return deaf(node) if dice & 1 else unheard(node)
        case Kind.ONE_TO_ONE:
            return both_ways(node, others(node)[dice & 1 : (dice & 1) + 1])
        case _:
            return frozenset()


def chosen(names: Sequence[str]) -> tuple[Kind, ...]:
    """Kinds by their names and families. ValueError for a name that is neither."""
    unknown = [name for name in names if not any(name in (kind.label, kind.family) for kind in Kind)]
    if unknown:
        raise ValueError(f"no such fault: {', '.join(unknown)}; expected {', '.join(FAMILIES)}, or one of their kinds")
    return tuple(kind for kind in Kind if kind.label in names or kind.family in names)


def goes_with(kind: Kind, under_way: Collection[Kind]) -> bool:
    """Says whether a fault of this kind may be in force at the same time as those."""
    if kind in JOINS or not JOINS.isdisjoint(under_way):
        return False
    if kind in under_way or (kind in EVERYWHERE and not NETWORK.issuperset(under_way)):
        return False
    if EVERYWHERE.intersection(under_way) and kind not in NETWORK:
        return False
    return not any(group.intersection(under_way) and kind in group for group in (NETWORK, LOSING))


def plan(seed: int, seconds: float, kinds: Sequence[Kind], pace: Pace) -> tuple[Fault, ...]:
    """Faults for so many seconds, in the order in which they begin; each kind about as often as the others."""
    rng = Random(seed)
    deck = _dealt(rng, kinds)
    return _episodes(rng, deck, kinds, seconds, pace)


def script(seed: int, kinds: Sequence[Kind], pace: Pace) -> tuple[Fault, ...]:
    """One episode for each of these, in this order, nothing beside it."""
    return _episodes(Random(seed), iter(kinds), (), float("inf"), pace)


def _dealt(rng: Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Yields all kinds in a random order, then again in another, without end."""
    while kinds:
        yield from rng.sample(kinds, len(kinds))


def _episodes(rng: Random, deck: Iterator[Kind], beside: Sequence[Kind], seconds: float, pace: Pace) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    now = rng.uniform(*pace.calm)
    for first in deck:
        at_once = rng.choice(pace.at_once) if beside else 1
        episode = _episode(rng, first, beside, at_once, now, pace)
        ends = max(fault.ends for fault in episode)
        if ends > seconds:
            break
        faults += episode
        now = ends + rng.uniform(*pace.calm)
    ordered = sorted(faults, key=lambda fault: fault.begins)
    return tuple(replace(fault, number=number) for number, fault in enumerate(ordered))


def _episode(rng: Random, first: Kind, beside: Sequence[Kind], at_once: int, now: float, pace: Pace) -> list[Fault]:
    kinds = [first]
    while len(kinds) < at_once and (fitting := [kind for kind in beside if goes_with(kind, kinds)]):
        kinds.append(rng.choice(fitting))
    free = [node for node in rng.sample(NODES, len(NODES)) if Kind.FULL_DISK not in kinds or node != SMALL_DISK]
    faults = []
    for place, kind in enumerate(kinds):
        node = SMALL_DISK if kind is Kind.FULL_DISK else rng.choice(NODES) if kind in NETWORK else free.pop()
        begins = now + (rng.uniform(0, _STAGGER) if place else 0.0)
        dice = rng.getrandbits(32)
        seconds = max(rng.uniform(*pace.trouble), LEAST.get(kind, 0.0))
        faults.append(Fault(0, kind, begins, begins + seconds, node, wires_of(kind, node, dice), dice))
    return faults
