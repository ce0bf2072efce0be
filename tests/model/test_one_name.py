"""Two processes of one name, and two peers: every state that the real claims and standing can reach.

At each step a wire breaks, a word arrives, a ping is answered, or a process dials. Who can reach whom never changes. A hanging
process is not a step of its own: nothing of it happens then, and its wires break. From each state all possible steps are taken,
until no new state appears. Connections that peers dial are left out: they only add to what the peers hold.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.standing import Standing
from tests.rigs.links import facts_of

PROCESSES, PEERS = ("X", "Y"), ("n2", "n3")
#: Whether a process reaches a peer.
Reach = dict[tuple[str, str], bool]
FACTS = {process: facts_of("n1", boot=process.encode()) for process in PROCESSES}


@dataclass(eq=False)
class Wire:
    """One connection, dialled by a process; ``word`` is the peer's message until the process has heard it."""

    link: ModelLink
    claims: Claims
    remote: str = "a host"
    word: str | None = None
    welcomed: bool = False
    open_here: bool = True
    open_there: bool = True
    pings: int = 0
    pongs: int = 0

    def pong(self) -> None:
        """The process shows that it lives."""
        self.pongs += 1
        self.claims.answered(self)

    def ping(self) -> int:
        self.pings += 1
        return self.pings

    def welcome(self, facts: NodeFacts) -> None:
        self.word, self.welcomed = "welcome", True

    def turn_away(self, reason: str) -> None:
        self.word = "taken"
        self.break_there()

    def break_there(self) -> None:
        self.open_there = False
        self.claims.release(self)


@dataclass(eq=False)
class ModelLink:
    """A model of link.py without time: dials, one attempt after the other."""

    process: Process
    node: str
    claims: Claims
    reachable: bool
    wire: Wire | None = None
    up: bool = False
    on_failure: Callable[[], None] | None = None

    def dial_now(self, on_failure: Callable[[], None]) -> None:
        if not self.up:
            self.on_failure = on_failure

    def dial(self) -> None:
        self.process.notice()
        if self.wire is None and self.reachable:
            self.wire = Wire(self, self.claims)
            self.claims.claim(self.wire, self.process.facts)

    def fail(self) -> None:
        """The attempt fails."""
        on_failure, self.on_failure = self.on_failure, None
        if on_failure is not None:
            on_failure()

    def hear(self) -> None:
        self.process.notice()
        if self.wire is None or self.wire.word is None:
            return
        word, self.wire.word = self.wire.word, None
        if word == "taken":
            self.process.stop()
        elif self.wire.open_there:
            self.up, self.on_failure = True, None
            self.process.standing.link_changed(cast("Link", self))

    def end(self) -> None:
        """This end breaks the wire, or learns that it is broken."""
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.open_here = False
            if wire.open_there:
                wire.break_there()
        if self.up:
            self.up = False
            self.process.standing.link_changed(cast("Link", self))


@dataclass(eq=False)
class Process:
    name: str
    peers: dict[str, Claims]
    reach: Reach
    stopped: bool = False
    links: list[ModelLink] = field(init=False)
    standing: Standing = field(init=False)

    def __post_init__(self) -> None:
        self.facts = FACTS[self.name]
        self.links = [ModelLink(self, node, claims, self.reach[self.name, node]) for node, claims in self.peers.items()]
        self.standing = Standing(cast("list[Link]", self.links), lambda: None)

    def stop(self) -> None:
        self.standing.withdraw()
        self.stopped = True
        for link in self.links:
            link.end()

    def notice(self) -> None:
        """The end of a connection arrives before anything that is sent later, on any connection."""
        for link in self.links:
            if link.wire is not None and not link.wire.open_there and link.wire.word != "taken":
                link.end()

    @property
    def partners(self) -> set[str]:
        """The peers with which this process can form a quorum, its own vote included."""
        if not self.standing.established:
            return set()
        return {link.node for link in self.links if link.up and link.wire is not None and link.wire.open_there}


#: The number of the process and of its link, and the event: a method of the link, or of its wire.
Step = tuple[int, int, str]


class World:
    def __init__(self, reach: Reach, steps: tuple[Step, ...] = ()) -> None:
        self.reach = reach
        self.peers = {node: Claims(node) for node in PEERS}
        self.processes = [Process(name, self.peers, reach) for name in PROCESSES]
        for step in steps:
            self.take(step)

    def take(self, step: Step) -> None:
        process, at, verb = step
        link = self.processes[process].links[at]
        getattr(link if hasattr(link, verb) else link.wire, verb)()

    def possible(self) -> Iterator[Step]:
        for (number, process), at in itertools.product(enumerate(self.processes), range(len(PEERS))):
            link, wire = process.links[at], process.links[at].wire
            if process.stopped:
                continue
            if wire is None:
                yield number, at, "dial" if link.reachable else "fail"
                continue
            if wire.word is not None:
                yield number, at, "hear"
            if not wire.open_there:
                yield number, at, "end"
                continue
            if wire.welcomed:
                yield number, at, "break_there"
            if wire.pongs < wire.pings:
                yield number, at, "pong"

    def holder(self, peer: str) -> str | None:
        """The process that the peer speaks with."""
        names = {facts.boot.decode() for facts in self.peers[peer]._holds.get("n1", {}).values()}
        assert len(names) <= 1
        return names.pop() if names else None

    def state(self) -> object:
        """Everything that future steps depend on."""
        every = [link for process in self.processes for link in process.links]
        wires: dict[object, tuple[str, str]] = {link.wire: (link.process.name, link.node) for link in every}

        def wire_state(wire: Wire | None) -> object:
            return wire and (wire.word, wire.welcomed, wire.open_there, wire.pings - wire.pongs)

        standing = [
            (p.stopped, p.standing.established, p.standing._asked is not None and frozenset(p.standing._asked))
            for p in self.processes
        ]
        links = [(link.up, link.on_failure is None, wire_state(link.wire)) for link in every]
        claims = [
            (
                tuple(wires[wire] for wire in claims._holds.get("n1", {})),
                tuple(
                    (wires[wire], frozenset((wires[held], ping - held.pongs) for held, ping in challenge.proofs.items()))
                    for wire, challenge in claims._challenges.items()
                ),
            )
            for claims in self.peers.values()
        ]
        return tuple(standing), tuple(links), tuple(claims)


def cut_off(world: World) -> bool:
    """Whether one process cannot reach the peer that speaks with the other process."""
    return any(not world.reach[process, peer] for process, peer in world.reach if world.holder(peer) not in (None, process))


def explore(reach: Reach, check: Callable[[World, tuple[Step, ...]], None]) -> int:
    """Calls ``check`` on every reachable state. Returns the number of states."""
    met, ahead = {World(reach).state()}, deque[tuple[Step, ...]]([()])
    while ahead:
        steps = ahead.popleft()
        for step in World(reach, steps).possible():
            further = (*steps, step)
            world = World(reach, further)
            if (state := world.state()) not in met:
                met.add(state)
                ahead.append(further)
                check(world, further)
    return len(met)


def renamed(reach: Reach) -> Iterator[tuple[bool, ...]]:
    """Yields the same world under other names, each as whether X reaches n2 and n3, and whether Y does."""
    for x, y in (PROCESSES, PROCESSES[::-1]):
        for first, second in (PEERS, PEERS[::-1]):
            yield reach[x, first], reach[x, second], reach[y, first], reach[y, second]


REACHES = [
    reach
    for row in itertools.product((True, False), repeat=4)
    if row == max(renamed(reach := dict(zip(itertools.product(PROCESSES, PEERS), row, strict=True))))
]


def describe(reach: Reach) -> str:
    return ",".join(f"{process}-{peer}" for (process, peer), reaches in reach.items() if reaches) or "nobody"


@pytest.mark.parametrize(
    "reach", [pytest.param(reach, marks=pytest.mark.slow if all(reach.values()) else ()) for reach in REACHES], ids=describe
)
def test_two_vote_only_if_one_is_cut_off_from_the_peer_that_holds_the_other(reach: Reach) -> None:
    """Proves: one process per name."""

    def check(world: World, steps: tuple[Step, ...]) -> None:
        if all(process.partners for process in world.processes):
            assert cut_off(world), steps

    states = explore(reach, check)
    assert states > 15_000 or not all(reach.values())
