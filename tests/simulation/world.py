"""A scenario made from a seed, and its run: three nodes, clients, faults; then everything is mended, and read via every node."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import cast

import msgspec

from chaos.testbed.checkers import COLLISION, NOT_FOUND, UNAVAILABLE, check
from chaos.testbed.history import Action, Complete, History, Invoke, Outcome
from chaos.testbed.violation import Violation
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import parse_token
from quorumvault.model import NODE_NAMES, QUORUM, Owner
from quorumvault.protocol import records
from quorumvault.server.storage import layout
from tests.simulation import clients, faults, knobs
from tests.simulation.clients import OWNERS, Call, Client
from tests.simulation.comparing import gathered
from tests.simulation.faults import Fault, Mend
from tests.simulation.knobs import Knobs
from tests.simulation.network import Network
from tests.simulation.nodes import Cluster, Node, Process
from tests.simulation.timeline import Timeline
from tests.simulation.witnesses import Witnesses

_CLIENTS, _CALLS = 8, 27
#: Seconds during which faults happen: about as long as the clients take.
_FAULTY_SECONDS = 7.0
#: Seconds from the end of the last fault until all operations under way have ended, by their deadlines.
_CALM = 10.0
SECRET = bytes(range(32))
_WIDE, _NARROW = gathered(Keyring("m1", SECRET)), gathered(Keyring("m1", SECRET, digest_bits=8))
#: One seed in this many has its tokens cut to 8 bits, so that values meet in them.
_NARROW_EVERY = 4


@dataclass(frozen=True)
class Scenario:
    """Everything that a run is made of. ``calls``: the calls of each client."""

    seed: int
    narrow: bool
    calls: tuple[tuple[Call, ...], ...]
    faults: tuple[Fault, ...]
    knobs: Knobs


def scenario(seed: int) -> Scenario:
    rng = Random(seed)
    return Scenario(
        seed,
        seed % _NARROW_EVERY == 0,
        tuple(clients.plan(rng, _CALLS) for _ in range(_CLIENTS)),
        faults.plan(rng, _FAULTY_SECONDS),
        knobs.draw(seed),
    )


@dataclass(frozen=True)
class Run:
    """The outcome of a scenario. ``trace`` is a hash of the history, of the disks, and of all random draws.

    ``branches`` counts rare events: paths of the protocol that were taken, and words that clients were told.
    """

    scenario: Scenario
    history: History
    trace: str
    seconds: float
    events: int
    branches: Counter[str]
    violation: Violation | None

    @property
    def overlapping(self) -> float:
        """The share of client operations that overlapped a fault."""
        ends = {event.op: event.at for event in self.history.events if isinstance(event, Complete)}
        spans = [(e.at, ends.get(e.op, self.seconds)) for e in self.history.events if isinstance(e, Invoke) and not e.final]
        hit = sum(any(f.begins <= end and start <= f.ends for f in self.scenario.faults) for start, end in spans)
        return hit / len(spans)

    @property
    def asked(self) -> int:
        return sum(map(len, self.scenario.calls))

    @property
    def operations(self) -> int:
        return sum(isinstance(event, Invoke) for event in self.history.events)

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(event.outcome for event in self.history.events if isinstance(event, Complete))


class World:
    """Three nodes and their clients. ``epochs``: the largest epoch that any client was shown, by owner.

    ``beside``: another world, whose time this world shares, and whose clients its nodes serve. ``make`` makes a node.
    """

    make_network: Callable[[Timeline, Random], Network] = Network

    def __init__(
        self,
        chosen: Scenario,
        begin: Callable[[Fault, Cluster], Mend] = faults.begin,
        beside: World | None = None,
        make: Callable[..., Node] = Node,
    ) -> None:
        self.chosen = chosen
        self.narrow = chosen.narrow
        self.keyring = _NARROW if chosen.narrow else _WIDE
        self.events: list[Invoke | Complete] = []
        self.epochs: dict[str, int] = {}
        self.timeline: Timeline = Timeline() if beside is None else beside.timeline
        self.branches: Counter[str] = Counter() if beside is None else beside.branches
        self.witnesses: Witnesses = Witnesses(self.branches) if beside is None else beside.witnesses
        self._rng = Random(~chosen.seed)
        self.network = self.make_network(self.timeline, self._rng)
        self.cluster: Cluster = {}
        #: The cluster of this world, and those of the worlds beside it.
        self.clusters: list[Cluster] = [self.cluster]
        if beside is not None:
            beside.clusters.append(self.cluster)
        self._let_begin = begin
        self._mends: dict[Fault, Mend] = {}
        lasting = self.timeline, self.network, self._rng, self.keyring, self.cluster, self.witnesses, self.branches, chosen.knobs
        for name in NODE_NAMES:
            node = self.cluster[name] = make(name, *lasting, Random(f"comparing {name} {chosen.seed}"))
            node.starts = 1_000 * (beside is not None)  # so that no round id occurs in both worlds
        for node in self.cluster.values():
            node.start()
        for fault in chosen.faults:
            self.timeline.at(fault.begins, None, self._begin, fault)
            self.timeline.at(fault.ends, None, self._mend, fault)

    def invoke(self, event: Invoke) -> int:
        self.events.append(event)
        return event.op

    def complete(self, event: Complete) -> None:
        self.events.append(event)
        asked = cast("Invoke", self.events[event.op])
        if event.epoch:
            self.epochs[asked.owner] = max(event.epoch, self.epochs.get(asked.owner, 0))
        for word in _words(event):
            self.branches[word] += 1
        self.witnesses.check(asked, event)

    def _begin(self, fault: Fault) -> None:
        self._mends[fault] = self._let_begin(fault, self.cluster)

    def _mend(self, fault: Fault) -> None:
        self._mends.pop(fault)()

    def attach(self, begin: Callable[[Process], object]) -> None:
        """Calls ``begin`` with each process, future ones included."""
        for node in self.cluster.values():
            node.started = begin
            if node.process is not None:
                begin(node.process)

    def play(self) -> None:
        """Runs until all clients have made all calls, and mends all faults."""
        for calls in self.chosen.calls:
            Client(self, calls)
        self.await_clients()
        for cluster in self.clusters:
            faults.mend_everything(cluster)
        self.timeline.run(self.timeline.now + _CALM)

    def read_everything(self) -> None:
        """Reads through each node, as each owner: every token that was asked for or given, whoever owns it, and the epoch."""
        tokens = tuple(dict.fromkeys(token for event in self.events for token in _tokens(event)))
        for node in NODE_NAMES:
            for owner in OWNERS:
                Client(self, ()).ask(Action.DETOKENIZE, owner, node, tokens, final=True)
                Client(self, ()).ask(Action.EPOCH, owner, node, (), final=True)
                self.await_clients()

    def await_clients(self) -> None:
        """Runs until the clients have made all calls, and no event is left."""
        self.timeline.run()

    def check(self) -> None:
        history = self.history()
        check(history)
        check_disks(history, self.cluster)

    def history(self) -> History:
        rotten = {key for node in self._nodes() for key in node.disk.rotten}
        tokens = {token for event in self.events for token in _tokens(event)} if rotten else set()
        excused = frozenset((owner.name, token) for owner in OWNERS for token in tokens if _key(owner, token) in rotten)
        return History(self.events, self.narrow, excused)

    def _nodes(self) -> Iterator[Node]:
        return (node for cluster in self.clusters for node in cluster.values())

    def trace(self) -> str:
        stored = [sorted(node.disk.stored.items()) for node in self._nodes()]
        return hashlib.blake2b(
            msgspec.msgpack.encode((self.events, stored, repr(self._rng.getstate()))), digest_size=8
        ).hexdigest()


def judged(world: World, *steps: Callable[[], object]) -> Run:
    """Runs these steps one after the other; a step raises what goes wrong in it. Returns the outcome."""
    violation = None
    try:
        with world.chosen.knobs.turned():
            for step in steps:
                step()
    except Violation as found:
        violation = found
    except Exception as error:
        violation = Violation("exception", f"{type(error).__name__}: {error}")
        violation.__cause__ = error
    timeline = world.timeline
    return Run(world.chosen, world.history(), world.trace(), timeline.now, timeline.events, world.branches, violation)


def run(chosen: Scenario) -> Run:
    """Plays a scenario. Checks what clients were told and what the disks hold, before and after everything is read."""
    world = World(chosen)
    return judged(world, world.play, world.check, world.read_everything, world.check)


def check_disks(history: History, cluster: Cluster, here: Callable[[str], bool] = lambda token: True) -> None:
    """In calm, no two disks differ about a key (rule: write-once), and two disks hold each value that was given out (committed).

    ``here``: whether a token's value belongs on these disks.
    """
    invoked = {event.op: event for event in history.events if isinstance(event, Invoke)}
    given = dict.fromkeys(
        (invoked[event.op].owner, token)
        for event in history.events
        if isinstance(event, Complete)
        for token in _tokens(event)
        if here(token)
    )
    owners = {owner.name: owner for owner in OWNERS}
    for name, token in given:
        key = _key(owners[name], token)
        held = [node.disk.holds(key) for node in cluster.values() if key not in node.disk.rotten]
        if history.narrow and records.CONFLICT_MARK in held:
            continue  # two values met when disks were merged; neither can be read (rule: a conflict never overwrites)
        votes = Counter(records.sealed_of(record) for record in held if record is not None)
        if len(votes) > 1 and not history.narrow:
            raise Violation("agreement", f"{token} of {name} stands for different values on different disks")
        if max(votes.values(), default=0) < QUORUM and (name, token) not in history.excused:
            raise Violation("committed", f"{token} of {name} was given to a client, and fewer than two disks hold it")


#: Cached, since the checks ask for the same tokens again and again.
_parsed = lru_cache(maxsize=1 << 14)(parse_token)


def _key(owner: Owner, token: str) -> bytes:
    epoch, digest = cast("tuple[int, bytes]", _parsed(token))
    return layout.record_keys(owner.id, [epoch], [digest])[0]


def _words(event: Complete) -> Iterator[str]:
    """The rare words that a client was told."""
    if event.outcome is not Outcome.OK:
        yield event.outcome.value
    for answer in event.answers:
        if answer is None or answer in (NOT_FOUND, UNAVAILABLE, COLLISION):
            yield answer or COLLISION


def _tokens(event: Invoke | Complete) -> list[str]:
    texts = event.given if isinstance(event, Invoke) else event.answers
    return [text for text in texts if text is not None and text.startswith("qv_")]
