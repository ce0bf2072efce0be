"""Nodes that reach each other over the real links: connections, handshake states, claims, standing, renewals; TCP is simulated.

    links       the links of quorumvault/server/peers, on an event loop in virtual time (streams.py)
    TLS         is absent: whoever connects says who it is, and is believed
    faults      faults of the network and of processes; and: connections that are reset or that a firewall forgets, a host
                without power, a node that leaves and comes back, credentials that change
    successors  a process stands still, and another host takes over its disk and serves it; then the old process goes on
    marks       rollback marks, as in a node: a succeeded process may resume while its successor is down, and learns from them
                that its disk is old

Rules for links are in link_rules.py; what clients are told has rules of its own.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest import mock

from msgspec import structs

from chaos.testbed.history import Complete, Invoke
from chaos.testbed.violation import Violation
from quorumvault.config.addresses import Address
from quorumvault.config.certificates import PeerCredentials
from quorumvault.config.limits import Limits
from quorumvault.crypto.x509 import peer_name
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import PROTOCOL_VERSION, AnyReply, AnyRequest, Message, Outgoing, Put
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.peers import connection
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection import LocalNode
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.renewal import Renewal
from quorumvault.server.peers.server import PeerServer
from quorumvault.server.peers.standing import Standing
from tests.simulation import faults, knobs
from tests.simulation.disks import Disk
from tests.simulation.faults import Fault, Mend
from tests.simulation.knobs import Knobs
from tests.simulation.link_rules import Heard, LinkRules
from tests.simulation.nodes import Cluster, Line, Node, Process, Way
from tests.simulation.storage import Storage
from tests.simulation.streams import PORT, End, Loop, StreamNetwork, Unsecured
from tests.simulation.world import Run, Scenario, World, judged, scenario

#: Nobody reads what links log.
logging.getLogger("quorumvault").addHandler(logging.NullHandler())

_CLUSTER: Final = "simulated"
#: The share of dying processes whose host loses its power.
_POWER: Final = 0.3
#: Seconds after which a process that left is started again.
_RESTART: Final = 0.2
#: Seconds between two checks whether clients are done.
_LOOK: Final = 0.02
#: The most seconds after the fault's end until a succeeded process goes on, and the seconds until its operator then ends it.
_LATER, _ENDED = 3.0, 2.5
#: Seconds to wait for a sync under way before another host takes over the disk.
_SYNC: Final = 0.002


@dataclass(eq=False)
class LinkedNode(Node):
    rules: LinkRules = field(kw_only=True)
    #: How often the node's credentials have changed.
    generation: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        #: Limits of the node's links. Turned limits go back to usual before the final read, which asks for much at once.
        self.limits = SimpleNamespace(**structs.asdict(self.knobs.limits))
        self.renew()

    @property
    def streams(self) -> StreamNetwork:
        assert isinstance(self.network, StreamNetwork)
        return self.network

    def renew(self) -> None:
        """The node's credentials now name another CA, and no longer the previous one."""
        self.generation += 1
        name = peer_name(_CLUSTER, self.name)
        shown = SimpleNamespace(listening=name, dialling=name, authorities=frozenset({b"%d" % self.generation}), revoked=())
        self.credentials = cast("PeerCredentials", shown)

    def make_process(self) -> Process:
        self.streams.dark.discard(self.name)
        process = LinkedProcess(self)
        self.rules.began(process)
        return process

    def end(self, process: Process) -> None:
        if process.schedule.alive:
            silently = self.rng.random() < _POWER and process is self.process and not self.left_behind
            super().end(process)
            self.left_behind = [other for other in self.left_behind if other is not process]
            if silently:
                self.streams.dark.add(self.name)
            assert isinstance(process, LinkedProcess)
            self.streams.died(process.schedule, silently=silently)
            self.rules.ended(process)

    def succeed(self, fault: Fault) -> None:
        """The node's process stands still, and another host takes over its disk."""
        old = self.process
        if old is None or old.schedule.stopped or any(node.left_behind for node in self.cluster.values()):
            return
        if old.disk.unsynced:
            self.timeline.at(self.timeline.now + _SYNC, None, self.succeed, fault)
            return
        self.branches["a successor"] += 1
        self.process = None
        old.schedule.stopped = True
        self.left_behind.append(old)
        disk = self.disk
        self.disk = Disk(
            disk.identity, stored=dict(disk.stored), unreadable=set(disk.unreadable), flipped=set(disk.flipped),
            rotten=set(disk.rotten),
        )  # fmt: skip
        disk.full = True  # the old host no longer has it
        rng = Random(fault.dice)
        self.timeline.at(self.timeline.now + rng.random() * 2 * _RESTART, None, self.start)
        on = fault.ends + rng.random() * _LATER
        self.timeline.at(on, None, self._goes_on, old)
        self.timeline.at(on + _ENDED, None, self.end, old)

    def _goes_on(self, old: Process) -> None:
        if old.schedule.alive:
            self.branches["one that was succeeded goes on"] += 1
            old.schedule.go_on()

    def start_soon(self) -> None:
        self.timeline.at(self.timeline.now + _RESTART, None, self.start)


class LinkedProcess(Process):
    """A process whose parts are put together as those of a node are (server/node/node.py)."""

    node: LinkedNode
    schedule: Loop

    def make_schedule(self) -> Loop:
        return Loop(self.node.streams, self.node.name)  # type: ignore[abstract]

    def make_lines(self) -> Mapping[str, Way]:
        node = self.node
        limits, timeouts = cast("Limits", node.limits), node.knobs.timeouts
        self.marks = RollbackMarks(
            lambda: self.own_replica,
            self._storage_of_marks,
            lambda: self.coordinator.view,
            self.schedule.call_later,
            self._put_back,
        )
        self.observer.counted = self.marks.acknowledged
        local = LocalNode(
            lambda: node.credentials, self.facts, Claims(node.name), self._taken, limits, timeouts, on_facts=self._heard
        )
        others = [name for name in NODE_NAMES if name != node.name]
        dice = Random(node.rng.getrandbits(64))
        self.links = {
            name: Link(name, Address(name, PORT), local, source=None, rng=dice, on_change=self._link_changed) for name in others
        }
        self.server = PeerServer(Address(node.name, PORT), local, others=others, submit=self._asked)
        self.established = False
        self.standing = Standing(self.links.values(), self._standing_changed)
        self.renewal = Renewal(self.server, self.links.values(), timeouts, self.schedule.call_later)  # type: ignore[arg-type]
        self.leaving = False
        self.schedule.call_soon(lambda: self.schedule.create_task(self._begin()))
        return {**{name: Reached(self, link) for name, link in self.links.items()}, node.name: Line(self, node.name)}

    async def _begin(self) -> None:
        await self.server.start()
        for link in self.links.values():
            link.start()

    def facts(self) -> NodeFacts:
        identity, standing = self.disk.identity, self.standing
        return NodeFacts(
            _CLUSTER, PROTOCOL_VERSION, "simulated", self.node.name, identity.disk, identity.incarnation, identity.mode,
            identity.view, {"m1": "fingerprint"}, "fields", "keys", self.boot, standing.established,
            sequence=self.disk.sequence, marks=dict(self.marks.known), withdrawn=standing.withdrawn,
        )  # fmt: skip

    def _standing_changed(self) -> None:
        self.established = self.standing.established
        self.server.tell()
        self.node.rules.look()

    def _link_changed(self, link: Link) -> None:
        self.standing.link_changed(link)
        self.renewal.link_changed(link)
        self.node.rules.look()

    def _taken(self, reason: str) -> None:
        self.node.branches["sent away"] += 1
        self.node.rules.sent_away(self)
        self.standing.withdraw()
        self.leave()

    def _heard(self, facts: NodeFacts) -> None:
        """Take a peer's facts. What they say of this disk counts only before the link to the peer is up.

        Real nodes compare it at each ping too. That would end a vote over an outdated link before the checkers see it.
        """
        if self.links[facts.node].up:
            facts = structs.replace(
                facts, marks={disk: mark for disk, mark in facts.marks.items() if disk != self.disk.identity.disk}
            )
        self.marks.heard(facts)

    def _storage_of_marks(self) -> Storage | None:
        """Where the process writes marks down: nowhere once its disk was taken away, since a failed write would end it early."""
        return None if self in self.node.left_behind else self.own_storage

    def _put_back(self, why: str) -> None:
        """A peer remembers more of the disk than the process has of it."""
        if self not in self.node.left_behind:
            raise Violation("marks", f"{self.node.name}, which forgot nothing, gives up its disk: {why}")
        self.node.branches["one that was succeeded is told so"] += 1
        self.standing.withdraw()

    def leave(self) -> None:
        """Leaves as a stopping node does once its clients are done."""
        if not self.leaving:
            self.leaving = True
            self.schedule.create_task(self._leave())

    async def _leave(self) -> None:
        for link in self.links.values():
            await link.close()
        await self.server.close()
        self.node.end(self)
        self.node.start_soon()

    def _asked(self, request: AnyRequest, on_reply: OnReply) -> None:
        """The peer port has taken a request."""
        self.node.rules.message(self)

        def answer(reply: AnyReply | NoReply) -> None:
            if isinstance(reply, NoReply) or self.may_send(reply):
                on_reply(reply)

        self.submit(request, answer)

    def arm(self, counts: Any, left: int, fall: Any = None) -> None:
        """As in Process, but the fall waits for this turn of the loop: messages sent before it leave, or some of them do."""
        super().arm(counts, left, lambda: self.schedule.call_soon(fall or partial(self.node.end, self)))


@dataclass(eq=False)
class Reached:
    """A link, as a coordinator uses it and as the checkers watch it."""

    process: LinkedProcess
    link: Link

    @property
    def node(self) -> str:
        return self.link.node

    @property
    def up(self) -> bool:
        return self.link.up

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        process, request = self.process, outgoing.request
        hear = process.node.witnesses.asked(request, on_reply)
        if isinstance(request, Put) and not request.digests:
            process.node.branches["repeats that are settled"] += 1
        if process.may_send(cast("Message", request)):
            self.link.send(outgoing, Heard(process.node.rules, process, self.node, hear))

    def break_off(self) -> None:
        """Does nothing: the link notices by itself."""


class LinkedWorld(World):
    """A world without an end of events: links ping for ever."""

    make_network = StreamNetwork
    #: How many calls clients have made, and how many of these have ended.
    _made = _ended = 0

    def invoke(self, event: Invoke) -> int:
        self._made += 1
        return super().invoke(event)

    def complete(self, event: Complete) -> None:
        self._ended += 1
        super().complete(event)

    def read_everything(self) -> None:
        for node in self.cluster.values():
            assert isinstance(node, LinkedNode)
            vars(node.limits).update(structs.asdict(knobs.USUAL.limits))
        super().read_everything()

    def await_clients(self) -> None:
        timeline, calls = self.timeline, sum(map(len, self.chosen.calls))
        until = max((fault.ends for fault in self.chosen.faults), default=0.0)
        while self._made < calls or self._ended < self._made or timeline.now <= until:
            timeline.run(timeline.now + _LOOK)


def _reset(fault: Fault, node: LinkedNode) -> Mend:
    for end in _touched(fault, node):
        end.reset()
    return lambda: None


def _forgotten(fault: Fault, node: LinkedNode) -> Mend:
    """A firewall forgets connections: nothing sent either way, or one way, arrives any more. New connections are not affected."""
    for end in _touched(fault, node):
        end.has_path = False
    node.rules.disturbed()
    return lambda: None


def _touched(fault: Fault, node: LinkedNode) -> Iterator[End]:
    """Yields ends of all connections of a node, or of those with one other node: both ends of each, or only the node's own."""
    others = [name for name in NODE_NAMES if name != node.name]
    for other in others if fault.dice >> 3 & 1 else [others[fault.dice >> 4 & 1]]:
        for end in node.streams.between(node.name, other):
            if fault.dice >> 5 & 1 or end.wire[0] == node.name:
                yield end


def _leave(fault: Fault, node: LinkedNode) -> Mend:
    process = node.process
    if isinstance(process, LinkedProcess) and not process.schedule.stopped:
        process.schedule.call_soon(process.leave)
    return node.start


def _renew(fault: Fault, node: LinkedNode) -> Mend:
    """Changes a node's credentials; by the dice once more while its links are being renewed."""

    def renew() -> None:
        node.renew()
        if isinstance(node.process, LinkedProcess):
            node.process.schedule.call_soon(node.process.renewal.begin)

    renew()
    return renew if fault.dice & 8 else lambda: None


def _succeed(fault: Fault, node: LinkedNode) -> Mend:
    node.succeed(fault)
    return lambda: None


KINDS: dict[str, tuple[Callable[[Fault, LinkedNode], Mend], int]] = {
    "reset": (_reset, 3),
    "forgotten connection": (_forgotten, 4),
    "leaves": (_leave, 2),
    "renewal": (_renew, 2),
    "successor": (_succeed, 4),
}


def begin(fault: Fault, cluster: Cluster) -> Mend:
    if fault.kind not in KINDS:
        return faults.begin(fault, cluster)
    node = cluster[NODE_NAMES[fault.dice % 3]]
    assert isinstance(node, LinkedNode)
    return KINDS[fault.kind][0](fault, node)


def linking(seed: int) -> Scenario:
    """The seed's scenario with faults of links; the limits and times of links are knobs too."""
    chosen, rng = scenario(seed), Random(f"links {seed}")
    kinds = [kind for kind, (_, weight) in KINDS.items() for _ in range(weight)]
    harms, now = [], rng.random()
    while now < _SECONDS:
        ends = now + 0.05 + rng.random() * 2.5
        harms.append(Fault(rng.choice(kinds), now, ends, rng.getrandbits(24)))
        now += 0.3 + rng.random() * 2.0
    every = sorted((*chosen.faults, *harms), key=lambda fault: fault.begins)
    return replace(chosen, faults=tuple(every), knobs=_turned(chosen.knobs, rng))


#: Seconds of faults.
_SECONDS: Final = 7.0


def _turned(usual: Knobs, rng: Random) -> Knobs:
    if usual == knobs.USUAL:
        return usual
    limits = structs.replace(
        usual.limits,
        coalesce_bytes=rng.choice((65_536, 1, 300)),
        peer_in_flight=rng.choice((4_096, 4_096, 3)),
        peer_queue_bytes=rng.choice((65_536, 65_536, 1_500)),
        peer_strangers=rng.choice((64, 64, 2)),
    )
    timeouts = structs.replace(
        usual.timeouts,
        handshake=rng.choice((2.0, 2.0, 1.2)),
        ping=rng.choice((0.5, 0.5, 0.3)),
        silence=rng.choice((2.0, 2.0, 1.2)),
        reconnect_first=rng.choice((0.05, 0.05, 0.3)),
        reconnect_last=rng.choice((1.0, 1.0, 0.3)),
    )
    return replace(usual, limits=limits, timeouts=timeouts)


def run_links(chosen: Scenario) -> Run:
    """Runs as world.run does, over links, and checks their rules too."""
    rules = LinkRules(chosen.knobs.timeouts)

    def make(name: str, *lasting: Any) -> LinkedNode:
        return LinkedNode(name, *lasting, rules=rules)

    with mock.patch.object(connection, "TlsSession", Unsecured):
        world = LinkedWorld(chosen, begin, make=make)
        rng = Random(f"streams {chosen.seed}")
        assert isinstance(world.network, StreamNetwork)
        if chosen.knobs != knobs.USUAL:
            world.network.window, world.network.high = rng.choice((65_536, 300)), rng.choice((65_536, 200))
        rules.watch(world)
        return judged(world, world.play, rules.check, world.check, world.read_everything, world.check, rules.check)
