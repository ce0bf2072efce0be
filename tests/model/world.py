"""A small world, explored exhaustively: the real operations, rounds and replicas, and every order in which messages can arrive.

A state is: what the three stores hold, and for each operation the decisions it was sent and the replies its present round has
got. Operations are generators, which cannot be copied; they are functions of their decisions, so they are made again from those.
States are kept in a set, so that each is explored once whatever path led there.

One step is one message: a request reaches a replica, is handled, and its reply reaches the coordinator at once. A message that
never arrives is a step that is never taken, which covers loss and crashes of coordinators; ``lose`` is the coordinator's giving up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from quorumvault.crypto.keys import Keyring
from quorumvault.disk import DiskIdentity
from quorumvault.protocol.messages import AnyReply, RoundId, encode
from quorumvault.protocol.operations import Ask, QuorumLost, Steps
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import Mode, first_view
from quorumvault.replica import Replica
from quorumvault.storage.memory import MemoryStore

NODES = ("n1", "n2", "n3")
DISKS = {node: node.encode() * 8 for node in NODES}
VIEW = first_view(DISKS)
KEYRING = Keyring("m1", bytes(32))
LOST = object()


@dataclass(frozen=True)
class Operation:
    """What a client asks for: a name for the history, and the operation's generator made anew."""

    name: str
    steps: Callable[[], Steps[object]]


@dataclass(frozen=True)
class Progress:
    """How far an operation is. ``heard`` are the replies (None: given up) of the present round, by node, in order.

    ``after`` has the operations that had ended when this one began; ``result`` is set when it has ended.
    """

    after: frozenset[int]
    decisions: tuple[object, ...] = ()
    heard: tuple[tuple[str, AnyReply | None], ...] = ()
    late: frozenset[tuple[int, str]] = frozenset()
    result: object = None
    ended: bool = False


Stores = tuple[frozenset[tuple[bytes, bytes]], ...]


@dataclass(frozen=True)
class State:
    stores: Stores = (frozenset(), frozenset(), frozenset())
    progress: tuple[Progress | None, ...] = ()
    losses: int = 0
    trace: tuple[str, ...] = ()

    def key(self) -> tuple[object, ...]:
        """What makes two states the same: not how they came about, and not the order of replies that decided nothing yet."""
        return self.stores, self.losses, tuple(map(_key_of, self.progress))


def _key_of(progress: Progress | None) -> object:
    if progress is None:
        return None
    heard = frozenset((node, reply and encode(reply)) for node, reply in progress.heard)
    return progress.after, repr(progress.decisions), heard, progress.late, repr(progress.result), progress.ended


class World:
    """Explores all states of some operations. ``losses`` bounds how often a coordinator gives a replica up."""

    def __init__(self, operations: list[Operation], *, keyring: Keyring = KEYRING, losses: int = 0) -> None:
        self._operations = operations
        self._keyring = keyring
        self._losses = losses

    def explore(self, check: Callable[[State, int], None]) -> int:
        """Calls check(state, operation) whenever an operation has just ended. Returns the number of distinct states."""
        start = State(progress=(None,) * len(self._operations))
        seen, queue = {start.key()}, [start]
        while queue:
            state = queue.pop()
            for following, ended in self._following(state):
                if ended is not None:
                    check(following, ended)
                if (key := following.key()) not in seen:
                    seen.add(key)
                    queue.append(following)
        return len(seen)

    def _following(self, state: State) -> Iterator[tuple[State, int | None]]:
        for number, progress in enumerate(state.progress):
            if progress is None:
                done = frozenset(other for other, p in enumerate(state.progress) if p is not None and p.ended)
                yield self._with(state, number, Progress(after=done), "begins"), None
                continue
            if not progress.ended:
                heard = {node for node, _ in progress.heard}
                ask = self._ask(number, progress.decisions)
                for node in NODES:
                    if node not in heard and ask.disk in (None, DISKS[node]):
                        yield from self._visit(state, number, progress, ask, node)
            yield from self._late(state, number, progress)

    def _visit(self, state: State, number: int, progress: Progress, ask: Ask, node: str) -> Iterator[tuple[State, int | None]]:
        stores, reply = self._handle(state.stores, number, len(progress.decisions), ask, node)
        yield self._hear(replace(state, stores=stores), number, progress, ask, node, reply)
        if state.losses < self._losses:
            yield self._hear(replace(state, losses=state.losses + 1), number, progress, ask, node, None)

    def _late(self, state: State, number: int, progress: Progress) -> Iterator[tuple[State, int | None]]:
        """Requests of rounds that were decided without them still arrive."""
        for round_number, node in progress.late:
            ask = self._ask(number, progress.decisions[:round_number])
            stores, _ = self._handle(state.stores, number, round_number, ask, node)
            rest = replace(progress, late=progress.late - {(round_number, node)})
            yield self._with(replace(state, stores=stores), number, rest, f"late to {node}"), None

    def _hear(
        self, state: State, number: int, progress: Progress, ask: Ask, node: str, reply: AnyReply | None
    ) -> tuple[State, int | None]:
        heard = (*progress.heard, (node, reply))
        round_number = len(progress.decisions)
        round_ = ask.round(self._round_id(number, round_number), VIEW)
        decision = None
        for who, said in heard:
            decision = _feed(round_, who, said)
        if decision is None:
            return self._with(state, number, replace(progress, heard=heard), f"{node} {'answers' if reply else 'silent'}"), None
        asked = {who for who, _ in heard}
        left = {(round_number, other) for other in NODES if other not in asked and ask.disk in (None, DISKS[other])}
        decisions = (*progress.decisions, decision)
        ended, result = self._result(number, decisions)
        following = Progress(progress.after, decisions, (), progress.late | left, result, ended)
        return self._with(state, number, following, f"{node} decides {decision}"), number if ended else None

    def _handle(self, stores: Stores, number: int, round_number: int, ask: Ask, node: str) -> tuple[Stores, AnyReply]:
        index = NODES.index(node)
        store = MemoryStore()
        store.write(dict(stores[index]))
        identity = DiskIdentity("c", node, DISKS[node], 1, Mode.ACTIVE, VIEW)
        replica = Replica(store, identity, self._keyring, reply_bytes=1 << 20)
        (reply,) = replica.handle([ask.request(self._round_id(number, round_number), VIEW.id)])
        # The sequence number counts writes and decides nothing; leaving it out folds states that differ in it alone.
        after = frozenset((key, value) for key, value in store.scan(b"") if not key.startswith(b"m"))
        return (*stores[:index], after, *stores[index + 1 :]), reply

    def _ask(self, number: int, decisions: tuple[object, ...]) -> Ask:
        steps = self._operations[number].steps()
        ask = next(steps)
        for decision in decisions:
            ask = steps.send(decision)
        return ask

    def _result(self, number: int, decisions: tuple[object, ...]) -> tuple[bool, object]:
        steps = self._operations[number].steps()
        next(steps)
        try:
            for decision in decisions:
                steps.send(decision)
        except StopIteration as end:
            return True, end.value
        except QuorumLost:
            return True, LOST
        return False, None

    def _with(self, state: State, number: int, progress: Progress, what: str) -> State:
        everyone = (*state.progress[:number], progress, *state.progress[number + 1 :])
        return replace(state, progress=everyone, trace=(*state.trace, f"{self._operations[number].name}: {what}"))

    @staticmethod
    def _round_id(number: int, round_number: int) -> RoundId:
        return RoundId(b"c%d" % number, b"boot", round_number)


def _feed(round_: Round[object], node: str, reply: AnyReply | None) -> object:
    return round_.give_up(DISKS[node]) if reply is None else round_.receive(reply)
