"""A small world, explored exhaustively: the real operations, rounds and replicas, and every order in which messages can arrive.

A state is: what each of the three stores holds, and for each operation the decisions that it was sent, what its present round has
heard, and which of its older messages are still under way. Operations are generators and cannot be copied; but they are functions
of their decisions, so they are made again from those. Stores and progresses are interned as small numbers and what one message
does to them is remembered, so that a state is a single integer and most steps are a look-up.

One step is one message: a request reaches a replica, is handled, and its reply reaches the coordinator at once. A message that
never arrives is a step that is never taken, which covers loss and coordinators that die. ``losses`` bounds how often a
coordinator gives a replica up and goes on without it. An operation begins with its first message: to begin earlier would only
lessen what its client knows by then. ``stragglers`` are requests that still arrive when their round was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from quorumvault.crypto.keys import Keyring
from quorumvault.disk import DiskIdentity
from quorumvault.protocol.messages import AnyReply, Get, ReadEpoch, RoundId, encode
from quorumvault.protocol.operations import Ask, QuorumLost, Steps
from quorumvault.protocol.views import Mode, first_view
from quorumvault.replica import Replica
from quorumvault.storage.memory import MemoryStore

NODES = ("n1", "n2", "n3")
DISKS = {node: node.encode() * 8 for node in NODES}
VIEW = first_view(DISKS)
KEYRING = Keyring("m1", bytes(32))
#: The result of an operation that found no quorum: it may have happened or not.
LOST = object()

T = TypeVar("T")
_FIELD_BITS = 16
_FIELD = (1 << _FIELD_BITS) - 1


@dataclass(frozen=True)
class Owed:
    """What is known when an operation begins, and its answer may not fall behind: a value to be found, an epoch to be reached."""

    found: frozenset[bytes] = frozenset()
    epoch: int = 1


@dataclass(frozen=True)
class Operation:
    """What a client asks for: the generator, made anew; and what its result obliges all later answers to.

    ``after`` is the number of the operation that the same client does first.
    """

    name: str
    steps: Callable[[], Steps[object]]
    obliges: Callable[[object], Owed]
    breaks: Callable[[object, Owed], str | None]
    after: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far an operation is. ``heard``: replies of the present round by node, None for a replica that was given up."""

    owed: Owed
    decisions: tuple[int, ...] = ()
    heard: frozenset[tuple[int, int | None]] = frozenset()
    late: frozenset[tuple[int, int]] = frozenset()
    result: int | None = None
    broken: str | None = None


class Table(Generic[T]):
    """Interns values as small numbers."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: T, key: Hashable) -> int:
        number = self._numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class Violation(AssertionError):
    pass


class World:
    """Explores all states of some operations."""

    def __init__(
        self, operations: list[Operation], *, keyring: Keyring = KEYRING, losses: int = 0, stragglers: bool = True
    ) -> None:
        self._operations = operations
        self._keyring = keyring
        self._losses = losses
        self._stragglers = stragglers
        self._stores: Table[dict[bytes, bytes]] = Table()
        self._progress: Table[Progress | None] = Table()
        self._decisions: Table[object] = Table()
        self._replies: Table[AnyReply] = Table()
        self._results: Table[object] = Table()
        self._steps: dict[tuple[int, int, int, int, bool], tuple[int, int]] = {}
        self._visits: dict[tuple[int, int], list[tuple[int, bool]]] = {}

    def explore(self) -> int:
        """Visits every state. Returns their number; raises Violation with a way that leads there."""
        empty, unborn = self._stores.number({}, ()), self._progress.number(None, None)
        assert empty == unborn == 0
        came_from = {0: 0}
        queue = [0]
        while queue:
            state = queue.pop()
            for number, following in self._following(state):
                if following not in came_from:
                    came_from[following] = state
                    queue.append(following)
                    self._check(number, following, came_from)
        return len(came_from)

    def _following(self, state: int) -> Iterator[tuple[int, int]]:
        """(operation that moves, state it leads to). A state has 16 bits for each store, each operation, and the losses."""
        stores = [state >> _FIELD_BITS * node & _FIELD for node in range(3)]
        losses_at = _FIELD_BITS * (3 + len(self._operations))
        for number in range(len(self._operations)):
            at = _FIELD_BITS * (3 + number)
            interned = was = state >> at & _FIELD
            if was == 0:
                if not self._may_begin(number, state):
                    continue
                interned = self._intern(Progress(self._owed(state)))
            for node, late in self._visits.get((number, interned)) or self._visits_of(number, interned):
                key = (number, interned, node, stores[node], late)
                store, after = self._steps.get(key) or self._step(*key)
                moved = state + ((store - stores[node]) << _FIELD_BITS * node)
                yield number, moved + ((after - was) << at)
                if not late and state >> losses_at < self._losses:
                    given_up = self._intern(self._hear(number, self._born(interned), node, None))
                    yield number, state + ((given_up - was) << at) + (1 << losses_at)

    def _may_begin(self, number: int, state: int) -> bool:
        first = self._operations[number].after
        if first is None:
            return True
        progress = self._progress.values[state >> _FIELD_BITS * (3 + first) & _FIELD]
        return progress is not None and progress.result is not None

    def _born(self, interned: int) -> Progress:
        progress = self._progress.values[interned]
        assert progress is not None
        return progress

    def _visits_of(self, number: int, interned: int) -> list[tuple[int, bool]]:
        """Where messages of this operation can still arrive: nodes of its present round, and late ones of decided rounds."""
        progress = self._born(interned)
        visits = [(node, True) for node in sorted({node for _, node in progress.late})]
        if progress.result is None:
            heard = {node for node, _ in progress.heard}
            ask = self._ask(number, progress.decisions)
            visits += [(node, False) for node in range(3) if node not in heard and _asks(ask, node)]
        self._visits[number, interned] = visits
        return visits

    def _step(self, number: int, interned: int, node: int, store: int, late: bool) -> tuple[int, int]:
        progress = self._born(interned)
        round_number = min(r for r, n in progress.late if n == node) if late else len(progress.decisions)
        after, reply = self._handle(number, progress.decisions[:round_number], node, store)
        if late:
            left = progress.late - {(round_number, node)}
            following = replace(progress, late=left, decisions=progress.decisions if left or progress.result is None else ())
        else:
            following = self._hear(number, progress, node, self._replies.number(reply, encode(reply)))
        self._steps[number, interned, node, store, late] = step = (after, self._intern(following))
        return step

    def _handle(self, number: int, decisions: tuple[int, ...], node: int, store: int) -> tuple[int, AnyReply]:
        memory = MemoryStore()
        memory.write(self._stores.values[store])
        identity = DiskIdentity("c", NODES[node], DISKS[NODES[node]], 1, Mode.ACTIVE, VIEW)
        replica = Replica(memory, identity, self._keyring, reply_bytes=1 << 20)
        request = self._ask(number, decisions).request(_round_id(number, len(decisions)), VIEW.id)
        (reply,) = replica.handle([request])
        # The sequence number counts writes and decides nothing here; without it states fold that differ in it alone.
        after = {key: value for key, value in memory.scan(b"") if not key.startswith(b"m")}
        return self._stores.number(after, frozenset(after.items())), reply

    def _hear(self, number: int, progress: Progress, node: int, reply: int | None) -> Progress:
        heard = progress.heard | {(node, reply)}
        ask = self._ask(number, progress.decisions)
        round_ = ask.round(_round_id(number, len(progress.decisions)), VIEW)
        decision = None
        for who, said in sorted(heard, key=lambda pair: pair == (node, reply)):
            decision = round_.give_up(DISKS[NODES[who]]) if said is None else round_.receive(self._replies.values[said])
        if decision is None:
            return replace(progress, heard=heard)
        late = progress.late
        if self._stragglers and not isinstance(ask.request(_round_id(number, 0), VIEW.id), Get | ReadEpoch):
            asked = {who for who, _ in heard}
            late |= {(len(progress.decisions), other) for other in range(3) if other not in asked and _asks(ask, other)}
        decisions = (*progress.decisions, self._decisions.number(decision, repr(decision)))
        result = self._result(number, decisions)
        if result is None:
            return Progress(progress.owed, decisions, frozenset(), late)
        answer = self._results.values[result]
        broken = None if answer is LOST else self._operations[number].breaks(answer, progress.owed)
        # What it was owed, and how it came to its result, matters no more, but for the requests that are still under way.
        return Progress(Owed(), decisions if late else (), frozenset(), late, result, broken)

    def _ask(self, number: int, decisions: tuple[int, ...]) -> Ask:
        steps = self._operations[number].steps()
        ask = next(steps)
        for decision in decisions:
            ask = steps.send(self._decisions.values[decision])
        return ask

    def _result(self, number: int, decisions: tuple[int, ...]) -> int | None:
        try:
            self._ask(number, decisions)
        except StopIteration as end:
            return self._results.number(end.value, repr(end.value))
        except QuorumLost:
            return self._results.number(LOST, None)
        return None

    def _owed(self, state: int) -> Owed:
        found, epoch = frozenset[bytes](), 1
        for number, operation in enumerate(self._operations):
            progress = self._progress.values[state >> _FIELD_BITS * (3 + number) & _FIELD]
            if progress is None or progress.result is None or (result := self._results.values[progress.result]) is LOST:
                continue
            more = operation.obliges(result)
            found, epoch = found | more.found, max(epoch, more.epoch)
        return Owed(found, epoch)

    def _check(self, number: int, state: int, came_from: dict[int, int]) -> None:
        broken = self._born(state >> _FIELD_BITS * (3 + number) & _FIELD).broken
        if broken:
            raise Violation(f"{self._operations[number].name}: {broken}\n" + "\n".join(self._told(state, came_from)))

    def _told(self, state: int, came_from: dict[int, int]) -> Iterator[str]:
        path = [state]
        while path[-1]:
            path.append(came_from[path[-1]])
        for before, after in zip(path[:0:-1], path[-2::-1], strict=True):
            moved = before ^ after
            for number, operation in enumerate(self._operations):
                if moved >> _FIELD_BITS * (3 + number) & _FIELD:
                    where = [node for at, node in enumerate(NODES) if moved >> _FIELD_BITS * at & _FIELD]
                    progress = self._born(after >> _FIELD_BITS * (3 + number) & _FIELD)
                    decisions = [self._decisions.values[decision] for decision in progress.decisions]
                    heard = sorted(NODES[node] for node, _ in progress.heard)
                    yield f"  {operation.name}: decided {decisions}, then heard {heard}; wrote to {where}"

    def _intern(self, progress: Progress) -> int:
        number = self._progress.number(progress, progress)
        assert number <= _FIELD
        return number


def _asks(ask: Ask, node: int) -> bool:
    return ask.disk in (None, DISKS[NODES[node]])


def _round_id(number: int, round_number: int) -> RoundId:
    return RoundId(b"c%d" % number, b"boot", round_number)
