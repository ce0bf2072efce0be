"""API keys that are used and revoked while disks are lost and all other faults happen.

Each process asks at its own times which keys are revoked, as nodes do. It takes a key as server/http/pipeline.py does: by the
table of the keys in force, and only if it knows what is revoked by then. All keys stay in every key file for ever, unrevoked.
Some keys expire, and each node judges that by its own clock, which may be wrong.
"""

import hashlib
from dataclasses import replace
from random import Random

from chaos.testbed.history import Action, Complete, Invoke, Outcome
from chaos.testbed.key_checker import REFUSED, TAKEN
from chaos.testbed.violation import Violation
from quorumvault.config.api_keys import NO_LIMIT, ApiKey, KeyTable
from quorumvault.errors import NoQuorum, Refused
from quorumvault.model import NODE_NAMES, QUORUM
from quorumvault.protocol.revocations import ASK_EVERY, ASK_SOON
from quorumvault.server.coordinator.revocations import _MOST_QUESTIONS, Revocations
from quorumvault.server.storage import layout
from tests.simulation.clients import KEYS, OWNERS, Client, plan
from tests.simulation.faults import Fault
from tests.simulation.nodes import Process
from tests.simulation.rejoining import Rejoining, losing
from tests.simulation.timeline import drive
from tests.simulation.world import Run, Scenario, World, judged

_CLIENTS, _CALLS = 8, 40
_ACTIONS = (*[Action.USE_KEY] * 40, *[Action.REVOKE_KEY] * 3, *[Action.TOKENIZE] * 5)
#: The time until which processes ask for revoked keys by themselves: later than clients end.
_UNTIL = 60.0
#: About when a node is cut off from both others, and for how many seconds: longer than it may take keys without asking. And the
#: dice of this fault (faults.py), to which the node's number is added.
_CUTS, _CUT, _BOTH_WAYS = (0.5, 5.0), 4.0, 36
#: The keys that expire, and their end in milliseconds from the beginning, by a right clock.
_ENDING, _END_MS = KEYS[:2], 3_500
#: The keys that no key file lists: they can be revoked only while few keys are revoked.
_UNLISTED = frozenset(KEYS[12:])


def text_of(key_id: str) -> str:
    return f"qvk_{key_id}_{'a' * 32}"


class _InForce:
    """The keys in force at a process: the keys of its file that are not revoked. Implements KeysInForce."""

    called_revoked: frozenset[str] = frozenset()
    listed = frozenset(KEYS) - _UNLISTED

    def __init__(self, ends: float) -> None:
        made = [
            ApiKey(key_id, OWNERS[0], frozenset({"tokenize"}), NO_LIMIT, hashlib.sha256(text_of(key_id).encode()).digest())
            for key_id in KEYS
        ]
        self.table = KeyTable(OWNERS, [replace(key, expires=ends) if key.id in _ENDING else key for key in made])

    def revoke(self, ids: frozenset[str]) -> None:
        self.table = self.table.without(ids)


class Revoking(Rejoining):
    """Attaches to each process its knowledge of revoked keys."""

    def __init__(self, world: World, seed: int) -> None:
        #: The first error: a use of an expired key, or a revocation that was refused or taken against the bounds.
        self._wrong: str | None = None
        self._beyond: str | None = None
        #: The ids that a client asked to revoke, and the ids whose revocation was acknowledged.
        self._asked: set[str] = set()
        self._acknowledged: set[str] = set()
        self._knowing: dict[Process, tuple[Revocations, _InForce]] = {}
        self._rng = Random(f"revocations {seed}")
        first = next(iter(world.cluster.values()))
        self._ends = first.wall_ms() - first.clock_error + _END_MS
        for node in world.cluster.values():
            node.use_key, node.revoke_key = self._use, self._revoke
        super().__init__(world)

    def _begin(self, process: Process) -> None:
        super()._begin(process)
        keys = _InForce(self._ends / 1000)
        revocations = Revocations(process.coordinator, process.schedule.time, keys)
        self._knowing[process] = revocations, keys
        under_way: list[None] = []

        def ended(result: object, error: Exception | None) -> None:
            under_way.pop()
            self._ended(result, error)

        def ask_now() -> None:
            """Asks as Revocations.ask does, in tasks."""
            if len(under_way) < _MOST_QUESTIONS:
                under_way.append(None)
                drive(revocations.once(), ended)

        process.gate.revoking = ask_now
        process.node.timeline.at(process.node.timeline.now, process.schedule, self._ask, process)

    def _ask(self, process: Process) -> None:
        """Asks again and again, whether or not earlier questions were answered."""
        revocations, _ = self._knowing[process]
        drive(revocations.once(), self._ended)
        timeline = process.node.timeline
        if timeline.now < _UNTIL:
            pause = (ASK_EVERY if revocations.known else ASK_SOON) * self._rng.uniform(0.9, 1.1)
            timeline.at(timeline.now + pause, process.schedule, self._ask, process)

    def _use(self, process: Process, key_id: str) -> str:
        """Raises NoQuorum if the process does not know which keys are revoked."""
        revocations, keys = self._knowing[process]
        wall_ms = process.node.wall_ms()
        ended = key_id in _ENDING and wall_ms >= self._ends
        if keys.table.authenticate(text_of(key_id), wall_ms / 1000) is None:
            if ended:
                raise NoQuorum("it has ended", outcome="none")  # this says nothing of its revocation
            return REFUSED
        if not revocations.known:
            process.node.branches["keys not taken for want of knowledge"] += 1
            raise NoQuorum("what is revoked is not known", outcome="none")
        if ended:
            self._wrong = self._wrong or f"{key_id} is taken by {process.node.name}, by whose clock it has ended"
        return TAKEN

    async def _revoke(self, process: Process, key_id: str) -> None:
        revocations, _ = self._knowing[process]
        process.node.branches["revocations"] += 1
        fresh = key_id not in self._asked
        self._asked.add(key_id)
        bounds = process.node.knobs.keys
        most = bounds.revoked if key_id in _InForce.listed else bounds.unlisted
        certain = len(self._acknowledged)
        try:
            await revocations.revoke(key_id)
        except Refused:
            if len(self._asked) <= most:
                self._beyond = f"{key_id} could not be revoked, beside {len(self._asked) - 1} at most"
            raise
        if fresh and certain >= most:
            self._beyond = f"{key_id} was revoked beside {certain}: there is room for {most}"
        self._acknowledged.add(key_id)

    def use_everything(self) -> None:
        """In calm, uses each key through each node."""
        cluster, timeline = self._world.cluster, self._world.timeline
        for name in NODE_NAMES:
            process = cluster[name].process
            assert process is not None
            timeline.at(timeline.now, process.schedule, self._ask, process)
            timeline.run(timeline.now + ASK_EVERY)
            for key_id in KEYS:
                if key_id not in _ENDING:
                    Client(self._world, ()).ask(Action.USE_KEY, OWNERS[0], name, (key_id,), final=True)
            timeline.run(timeline.now + ASK_EVERY)

    def check_ends(self) -> None:
        if self._wrong is not None:
            raise Violation("ended key", self._wrong)

    def check_bounds(self) -> None:
        """No disk holds more keys than it takes, except by a copy of two disks that do."""
        if self._beyond is not None:
            raise Violation("revoked bounds", self._beyond)
        for node in self._world.cluster.values():
            held = sum(key.startswith(layout.REVOKED) for key in node.disk.stored)
            bounds = self._world.chosen.knobs.keys
            if held > (bounds.held if not node.former else bounds.copied):
                raise Violation("revoked bounds", f"{node.name} has {held} revoked keys on its disk")

    def check_disks(self) -> None:
        """In calm, two disks hold each key whose revocation was acknowledged."""
        events = self._world.events
        asked = {event.op: event for event in events if isinstance(event, Invoke) and event.action is Action.REVOKE_KEY}
        for event in events:
            if isinstance(event, Complete) and event.outcome is Outcome.OK and event.op in asked:
                (key_id,) = asked[event.op].given
                held = [node.disk.holds(layout.revoked_key(key_id)) for node in self._world.cluster.values()]
                if len(held) - held.count(None) < QUORUM:
                    raise Violation("committed", f"{key_id} was said to be revoked, and fewer than two disks hold that")


def revoking(seed: int) -> Scenario:
    """The seed's scenario with lost disks, nodes that are cut off, and clients that use and revoke API keys."""
    rng = Random(f"keys {seed}")
    chosen = losing(seed)
    begins = [at + rng.random() for at in _CUTS]
    cuts = [Fault("partition", at, at + _CUT, _BOTH_WAYS + rng.randrange(3)) for at in begins]
    calls = tuple(plan(rng, _CALLS, _ACTIONS) for _ in range(_CLIENTS))
    faults = tuple(sorted((*chosen.faults, *cuts), key=lambda fault: fault.begins))
    return replace(chosen, narrow=False, calls=calls, faults=faults)


def run_revoking(chosen: Scenario) -> Run:
    """Runs as run_rejoining does. In the end no revoked key is taken, and every other key is."""
    world = World(chosen, lambda fault, cluster: keys.begin_fault(fault, cluster))
    keys = Revoking(world, chosen.seed)
    return judged(
        world,
        world.play,
        keys.check,
        world.check,
        keys.check_ends,
        keys.check_bounds,
        keys.check_disks,
        keys.use_everything,
        world.check,
    )
