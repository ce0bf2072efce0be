"""A small world, explored exhaustively: the real operations, rounds and replicas, and every order in which messages can arrive.

A state is: the content of each of the three disks, the progress of each operation, the requests that were sent and would still
change something on arrival, and what finished operations have shown. One step is one of these:

    a request reaches a replica, is handled, and its reply reaches the coordinator at once
    a request reaches a replica, and its reply is lost, or arrives when nobody waits for it any more
    several requests reach a replica and are handled as a group, whose replies arrive at once or never (groups.py)
    a coordinator gives up all replicas that its round has not heard: they crashed, are cut off, or hang
    a replica crashes, its disk loses what was not synced, and its process loses what it knew
    a replica whose knowledge is followed takes a step of a comparison with another replica (knowledge.py)
    a notice of a committed round reaches a replica
    a replica takes over another replica's record by anti-entropy

No step has to happen, and no step is bounded in number: these are all the states, whatever fails and however often. A dead
coordinator is one that does nothing any more while the messages that it sent still arrive. An operation begins with its first
message: an earlier beginning would only reduce what its client knows by then.

These reductions keep the number of states small, and lose nothing:

- Nodes are alike, and so are operations of one kind: of all states that differ only by a renaming, one is kept.
- Replicas only grow. A request that would change nothing on arrival never will, so it is dropped; and a request that arrived
  twice is the same as one that arrived once. ``unsettled`` looks for cases in which this was wrong.
- Giving a replica up early is the same as not hearing it and giving it up last: if a round decides at all, it decides the same,
  whether or not the replicas that it has not heard may still answer. This is asserted of each decision.
- Of a finished operation, only what it obliges others to is kept. An operation that repeats its first request is back at its
  beginning, so that it may try for ever, and not only as often as the code does.

Operations are generators and cannot be copied; but each is a function of the decisions that it was sent, and is made again from
these. All parts of a state are interned as small numbers, and the effect of a message on them is cached, so that most steps are
look-ups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from quorumvault.crypto.keys import Keyring
from quorumvault.model import QUORUM
from quorumvault.protocol import records
from quorumvault.protocol.messages import (
    Ack,
    AnyReply,
    AnyRequest,
    Get,
    GetSettled,
    OtherView,
    Put,
    ReadEpoch,
    ReadRevoked,
    RoundId,
    Settle,
    encode,
)
from quorumvault.protocol.read import ReadResult
from quorumvault.protocol.steps import Ask, QuorumLost, Steps
from quorumvault.protocol.views import Mode, first_view
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from tests.model.damage import Damage
from tests.model.groups import MOST, Group, odd_groups
from tests.model.knowledge import Knowing, Memory, Process, notices
from tests.simulation.disks import Disk

NODES = ("n1", "n2", "n3")
DISKS = [node.encode() * 8 for node in NODES]
VIEW = first_view(dict(zip(NODES, DISKS, strict=True)))
IDENTITIES = [DiskIdentity("c", node, disk, 1, Mode.ACTIVE, VIEW) for node, disk in zip(NODES, DISKS, strict=True)]
KEYRING = Keyring("m1", bytes(32))
#: Replies go straight to their round, so that all rounds can have one id, unless replicas remember rounds.
ROUND = RoundId(b"coordinator", b"boot", 1)
#: The progress of an operation that has not begun, and of one that has ended.
_UNBORN, _ENDED = 0, 1

T = TypeVar("T")
ThreeStores = tuple[int, int, int]
#: For each node its new number; the first renaming changes nothing.
_RENAMINGS = list(itertools.permutations(range(3)))


@dataclass(frozen=True)
class Owed:
    """What finished operations have shown, and later answers must respect: a value to be found, an epoch to be reached, revoked
    API keys.

    ``collided``: a reader was told of a collision; after that nobody may be told a value.
    """

    found: frozenset[bytes] = frozenset()
    epoch: int = 1
    collided: bool = False
    revoked: frozenset[str] = frozenset()

    def and_also(self, more: Owed) -> Owed:
        collided, revoked = self.collided or more.collided, self.revoked | more.revoked
        return Owed(self.found | more.found, max(self.epoch, more.epoch), collided, revoked)


@dataclass(frozen=True)
class Operation:
    """A client's operation. Operations of one ``kind`` differ only in when they happen.

    ``steps`` makes the generator anew. ``obliges``: what a result shows. ``breaks``: what is wrong with a result, given what is
    owed. ``minds``: the part of what is owed that ``breaks`` looks at. ``begins``: decisions before the first request that may
    repeat.
    """

    kind: str
    steps: Callable[[], Steps[object]]
    obliges: Callable[[Any], Owed]
    breaks: Callable[[Any, Owed], str | None]
    minds: Callable[[Owed], Owed]
    begins: int = 0

    def ask_after(self, decisions: Iterable[object]) -> Ask:
        """The round that the operation holds after these decisions. Raises what it raises, or StopIteration if it has ended."""
        steps = self.steps()
        ask = next(steps)
        for decision in decisions:
            ask = steps.send(decision)
        return ask


@dataclass(frozen=True)
class Progress:
    """The progress of an operation: what was owed when it began, its decisions, and the replies of its present round by node.

    ``past``: nodes whose disks were salvaged since it began.
    """

    owed: int
    decisions: tuple[int, ...] = ()
    heard: frozenset[tuple[int, int]] = frozenset()
    past: frozenset[int] = frozenset()


class State(NamedTuple):
    """By number: three stores, requests under way, what is owed, the operations in the order of their kinds, and a reading."""

    stores: ThreeStores
    flight: int
    owed: int
    progress: tuple[int, ...]
    reading: int = 0


class Step(NamedTuple):
    """The effects of a message: the operation's progress, the replica's store, requests that are sent, and what is shown."""

    progress: int
    store: int = 0
    sent: int = 0
    shown: int = 0


class Reading(NamedTuple):
    """A node is filling its gap: it has read the store of one peer, as the store was then."""

    node: int
    peer: int
    store: int


class Content(NamedTuple):
    """The content of a disk, and of its process's memory if that is followed.

    If every write is synced before it is answered, nothing is ever left in the cache.
    """

    synced: frozenset[tuple[bytes, bytes]] = frozenset()
    cached: frozenset[tuple[bytes, bytes]] = frozenset()
    memory: Memory | None = None


class Explored(NamedTuple):
    """``depth``: the number of steps to the farthest state."""

    states: int
    steps: int
    depth: int


class Table(Generic[T]):
    """Interns values as small numbers; the first value gets 0."""

    def __init__(self, *values: T) -> None:
        self.values = list(values)
        self._numbers: dict[Hashable, int] = {value: number for number, value in enumerate(values)}

    def number(self, value: T, key: Hashable = None) -> int:
        """The number of a value. Equal values have equal ``key``s; without a key the value is its own key."""
        number = self._numbers.setdefault(value if key is None else key, len(self.values))
        if number == len(self.values):
            assert number < 1 << 16, "a state has no more than 16 bits for each of its parts"
            self.values.append(value)
        return number


class Violation(AssertionError):
    pass


class _Broken(Exception):
    """A forbidden answer."""


class World:
    """Explores all states of some operations, which are grouped by kind.

    ``renaming``: if false, states that differ only by a renaming stay apart. ``knowing``: what these replicas know of settled
    records is followed too. Then they keep their names, only they are asked alone, and each write is of its own kind.
    ``stored``: the content of all disks at the beginning. ``group``: the most requests that a replica takes into one write.
    ``damage``: disks lose what they had.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        keyring: Keyring = KEYRING,
        renaming: bool = True,
        knowing: Knowing | None = None,
        stored: Mapping[bytes, bytes] | None = None,
        group: int = MOST,
        damage: Damage | None = None,
    ) -> None:
        kinds = list(dict.fromkeys(operation.kind for operation in operations))
        self._kinds = [kinds.index(operation.kind) for operation in operations]
        assert self._kinds == sorted(self._kinds)
        self._operations = [next(each for each in operations if each.kind == kind) for kind in kinds]
        self._keyring = keyring
        self._knowing = knowing
        self._stored = frozenset((stored or {}).items())
        self._group = group
        self._damage = damage
        #: Stores, each with a group of requests that was tried with it.
        self.groups: set[tuple[int, Group]] = set()
        #: The groups among these whose outcome differs from that of their requests one by one.
        self.odd: list[tuple[int, Group]] = []
        self._code = Struct(f"<{6 + len(operations)}H")
        self._contents = Table(Content())
        self._flights: Table[frozenset[tuple[int, int]]] = Table(frozenset())
        self._owed = Table(Owed())
        self._readings: Table[Reading | None] = Table(None)
        self._progress: Table[Progress | str] = Table("not begun", "ended")
        self._decisions: Table[object] = Table()
        self._replies: Table[AnyReply] = Table()
        self._requests: Table[AnyRequest] = Table()
        #: Stores before and after a request was handled.
        self._grown: set[tuple[int, int]] = set()
        self.rename(renaming)
        twins = [self._operations[number] for number in range(len(kinds)) if self._kinds.count(number) > 1]
        assert knowing is None or all(isinstance(twin.ask_after(()).request, Get) for twin in twins)

    def rename(self, renaming: bool) -> None:
        """Sets whether states that differ only by a renaming count as one from now on."""
        self._remember()
        named = self._knowing.disks if self._knowing else ()
        self._renamings = [at for at, to in enumerate(_RENAMINGS) if at == 0 or (renaming and all(to[n] == n for n in named))]
        spans = [(self._kinds.index(kind), self._kinds.count(kind)) for kind in range(len(self._operations))]
        #: The ranges of a state that have several operations of a kind, from and to.
        self._twins = [(start, start + count) for start, count in spans if renaming and count > 1]

    def _remember(self) -> None:
        """Caches functions whose arguments and results are numbers of the tables, and of nodes."""
        self._born = cache(self._find_born)
        self._awaited = cache(self._find_awaited)
        self._steps = cache(self._find_step)
        self._silences = cache(self._find_silence)
        self._arrived = cache(self._find_arrived)
        self._handled = cache(self._find_handled)
        self._asked = cache(self._find_asked)
        self._heard = cache(self._find_heard)
        self._odd_groups = cache(self._find_odd)
        self._crashed = cache(self._find_crashed)
        self._settled = cache(self._find_settled)
        self._joined = cache(self._find_joined)
        self._together = cache(self._find_together)
        self._orders = cache(self._find_orders)
        self._heard_sums = cache(self._find_heard_sums)
        self._compared = cache(self._find_compared)
        self._mended = cache(self._find_mended)
        self._sound = cache(self._find_sound)
        self._has_gap = cache(self._find_gap)
        self._salvaged = cache(self._find_salvaged)
        self._outlived = cache(self._find_outlived)
        self._is_left = cache(self._find_left)
        self._exchanged = cache(self._find_exchanged)
        self._filled = cache(self._find_filled)
        self._moved = [cache(partial(self._find_moved, cache(partial(self._find_moved_operation, to)))) for to in _RENAMINGS]
        self._moved_readings = [cache(partial(self._find_moved_reading, to)) for to in _RENAMINGS]
        self._moved_flights = [cache(partial(self._find_moved_flight, to)) for to in _RENAMINGS]

    def explore(self, on_depth: Callable[[Explored], object] = lambda so_far: None) -> Explored:
        """Visits every state, the nearest first. Raises Violation with a shortest path that leads to it."""
        first, second, third = (
            self._contents.number(Content(self._stored, memory=self._knowing.first(node) if self._knowing else None))
            for node in range(3)
        )
        start = self.canonical(State((first, second, third), 0, 0, (_UNBORN,) * len(self._kinds)))
        self._came_from = came_from = {start: start}
        frontier, steps, depth = [start], 0, 0
        while frontier:
            further = []
            for state in frontier:
                alike: set[State] = set()
                try:
                    for ahead in self._following(self._decode(state)):
                        steps += 1
                        if ahead in alike:
                            continue
                        alike.add(ahead)
                        following = self.canonical(ahead)
                        if following not in came_from:
                            came_from[following] = state
                            further.append(following)
                except _Broken as broken:
                    raise Violation("\n".join([str(broken), *self._told(state)])) from None
            on_depth(Explored(len(came_from), steps, depth))
            frontier, depth = further, depth + 1
        return Explored(len(came_from), steps, depth - 1)

    def visited(self) -> Iterator[State]:
        """Yields the explored states."""
        return map(self._decode, self._came_from)

    def unsettled(self) -> list[tuple[AnyRequest, Content, Content]]:
        """Requests that would change nothing on a disk, but would on a disk that grew from it, or in a group. There must be none.

        Changes in memory do not count: a replica remembers a request there, and forgets it again. If disks lose what they had, no
        request is dropped.
        """
        if self._damage is not None:
            return []
        numbers, contents = range(len(self._requests.values)), self._contents.values
        in_groups = [
            (self._requests.values[idle], contents[store], contents[self._handled(store, group)[0]])
            for store, idle, other in itertools.product({store for store, _ in self._grown}, numbers, numbers)
            if self._arrived(idle, store) == store
            for group in odd_groups(self._handled_on_disk, store, sorted({idle, other}), 2)
        ]
        return in_groups + [
            (request, self._contents.values[before], self._contents.values[after])
            for (number, request), (before, after) in itertools.product(enumerate(self._requests.values), self._grown)
            if self._arrived(number, before) == before and self._on_disk(self._arrived(number, after)) != self._on_disk(after)
        ]

    def _handled_on_disk(self, store: int, requests: Group) -> tuple[int, Group]:
        """What a group leaves on a disk, without regard to knowledge and replies."""
        return self._contents.number(self._on_disk(self._handled(store, requests)[0])), (0,) * len(requests)

    def _on_disk(self, store: int) -> Content:
        return self._contents.values[store]._replace(memory=None)

    def canonical(self, state: State) -> bytes:
        """The representative of all states that differ from this one only by a renaming: the first of them."""
        stores, renamings = self._orders(state.stores)
        flight, reading, progress = min(
            [
                (self._moved_flights[to](state.flight), self._moved_readings[to](state.reading), self._moved[to](state.progress))
                for to in renamings
            ]
        )
        return self._code.pack(*stores, state.owed, flight, reading, *progress)

    def _decode(self, code: bytes) -> State:
        first, second, third, owed, flight, reading, *progress = self._code.unpack(code)
        return State((first, second, third), flight, owed, tuple(progress), reading)

    def _following(self, state: State) -> Iterator[State]:
        """Yields the states one step ahead. Raises _Broken if a step gives a forbidden answer, or this state is wrong."""
        if broken := self._sound(state.stores):
            raise _Broken(broken)
        seen = set()
        for at, progress in enumerate(state.progress):
            operation = self._kinds[at]
            if progress == _ENDED or (self._twins and (operation, progress) in seen):
                continue
            seen.add((operation, progress))
            begun = progress or self._born(operation, state.owed)
            for node in self._awaited(operation, begun):
                yield self._after(state, at, node, self._steps(operation, begun, node, state.stores[node]))
            silence = self._silences(operation, begun) if progress else None
            if silence is not None:
                yield self._after(state, at, 0, silence._replace(store=state.stores[0]))
        for request, node in self._flights.values[state.flight]:
            yield self._written(state, node, self._arrived(request, state.stores[node]))
        for node in range(3):
            yield from self._grouped(state, node)
        for node, store in enumerate(state.stores):
            if self._crashed(store) != store:
                yield self._written(state, node, self._crashed(store))
        if self._knowing is not None:
            yield from self._learning(state, self._knowing)
        if self._damage is not None:
            yield from self._damaging(state, self._damage)

    def _grouped(self, state: State, node: int) -> Iterator[State]:
        """A replica handles a group of the requests under way to it. Awaited replies arrive at once, or never."""
        waiting: dict[int, list[int]] = {}
        for at, progress in enumerate(state.progress):
            begun = progress or self._born(self._kinds[at], state.owed)
            if progress != _ENDED and node in self._awaited(self._kinds[at], begun):
                waiting.setdefault(self._asked(self._kinds[at], begun), []).append(at)
        under_way = {request for request, to in self._flights.values[state.flight] if to == node}
        for group in self._odd_groups(state.stores[node], frozenset(under_way.union(waiting))):
            store, replies = self._handled(state.stores[node], group)
            askers = {request: iter(waiting.get(request, ())) for request in group}
            asked = [(next(askers[request], None), reply) for request, reply in zip(group, replies, strict=True)]
            heard = [(at, reply) for at, reply in asked if at is not None]
            for kept in itertools.product((True, False), repeat=len(heard)):
                yield self._after_group(state, node, store, itertools.compress(heard, kept))

    def _after_group(self, state: State, node: int, store: int, heard: Iterable[tuple[int, int]]) -> State:
        following = self._written(state, node, store)
        for at, reply in heard:
            begun = state.progress[at] or self._born(self._kinds[at], state.owed)
            following = self._after(following, at, node, self._heard(self._kinds[at], begun, node, reply)._replace(store=store))
        return following

    def _learning(self, state: State, knowing: Knowing) -> Iterator[State]:
        for node, other in itertools.permutations(range(3), 2):
            store, theirs = state.stores[node], state.stores[other]
            if knowing.compares and node in knowing.disks:
                yield self._written(state, node, self._heard_sums(store, theirs))
            if knowing.mends:
                yield self._written(state, node, self._mended(store, theirs))
        for node in knowing.disks if knowing.compares else ():
            yield self._written(state, node, self._compared(state.stores[node]))

    def _damaging(self, state: State, damage: Damage) -> Iterator[State]:
        stores = state.stores
        gaps = sum(map(self._has_gap, stores))
        for node, store in enumerate(stores):
            if not self._has_gap(store) and gaps < damage.gaps:
                for kept in (True, False):
                    after = self._written(state, node, self._salvaged(store, kept))
                    if damage.all_lost or self._is_left(after.stores, state.owed):
                        yield after._replace(progress=tuple(self._outlived(node, each) for each in after.progress))
            if self._has_gap(store):
                yield from self._reading(state, node, damage)
        if reading := self._readings.values[state.reading]:
            node, peer, read = reading
            filled = self._filled(stores[node], read, stores[peer], stores[3 - node - peer])
            yield self._written(state, node, filled)._replace(reading=0)
        for node, other in itertools.permutations(range(3), 2):
            mine, theirs = self._exchanged(stores[node], stores[other])
            yield self._written(self._written(state, node, mine), other, theirs)

    def _reading(self, state: State, node: int, damage: Damage) -> Iterator[State]:
        """A node with a gap reads one peer, or both. It has waited until no operation counts what it said before its salvage."""
        stores = state.stores
        if damage.ends:
            state = state._replace(progress=tuple(self._ended(node, each) for each in state.progress))
        for peer, other in itertools.permutations(at for at in range(3) if at != node):
            if damage.apart:
                yield state._replace(reading=self._readings.number(Reading(node, peer, stores[peer])))
            else:
                filled = self._filled(stores[node], stores[peer], stores[peer], stores[other])
                yield self._written(state, node, filled)

    def _after(self, state: State, at: int, node: int, step: Step) -> State:
        """The state after an operation's step."""
        progress, store, sent, shown = step
        flight = self._joined(state.flight, sent) if sent else state.flight
        owed = self._together(state.owed, shown) if shown else state.owed
        moved = (*state.progress[:at], progress, *state.progress[at + 1 :])
        return self._written(State(state.stores, flight, owed, moved, state.reading), node, store)

    def _written(self, state: State, node: int, store: int) -> State:
        first, second, third = state.stores
        stores = ((store, second, third), (first, store, third), (first, second, store))[node]
        flight = self._settled(state.flight, stores) if state.flight else 0
        return State(stores, flight, state.owed, state.progress, state.reading)

    def _find_born(self, operation: int, owed: int) -> int:
        minded = self._operations[operation].minds(self._owed.values[owed])
        return self._progress.number(Progress(self._owed.number(minded)))

    def _find_awaited(self, operation: int, number: int) -> list[int]:
        """The nodes whose reply the present round of an operation waits for."""
        progress = self._begun(number)
        ask = self._ask(operation, progress.decisions)
        heard = {node for node, _ in progress.heard}
        return [node for node in range(3) if node not in heard and ask.asks(DISKS[node])]

    def _find_step(self, operation: int, number: int, node: int, store: int) -> Step:
        """The request reaches a node, is handled, and its reply is heard."""
        after, (reply,) = self._handled(store, (self._asked(operation, number),))
        return self._heard(operation, number, node, reply)._replace(store=after)

    def _find_asked(self, operation: int, number: int) -> int:
        """The request of the present round of an operation."""
        progress = self._begun(number)
        request = self._ask(operation, progress.decisions).request.sent_in(self._round_id(operation, progress), VIEW.id)
        return self._requests.number(request, encode(request))

    def _find_heard(self, operation: int, number: int, node: int, reply: int) -> Step:
        """A node's reply is heard. The step leaves out the node's store."""
        progress = self._begun(number)
        heard = progress.heard | {(node, reply)}
        awaited = [other for other in self._awaited(operation, number) if other != node]
        decision = self._decide(operation, progress, heard, node, ())
        if decision is None:
            return Step(
                self._progress.number(replace(progress, heard=heard)),
                sent=0 if progress.heard else self._sent(operation, progress),
            )
        assert repr(self._decide(operation, progress, heard, node, awaited)) == repr(decision)
        step = self._decided(operation, progress, decision)
        return step._replace(sent=self._joined(step.sent, self._sent(operation, progress)))

    def _find_silence(self, operation: int, number: int) -> Step | None:
        """All replicas that were not heard yet are given up. Returns None if that decides nothing."""
        progress = self._begun(number)
        decision = self._decide(operation, progress, progress.heard, None, self._awaited(operation, number))
        return None if decision is None else self._decided(operation, progress, decision)

    def _find_arrived(self, request: int, store: int) -> int:
        """A store, after a request whose reply nobody hears."""
        return self._handled(store, (request,))[0]

    def _find_odd(self, store: int, requests: frozenset[int]) -> list[Group]:
        found = list(odd_groups(self._handled_as_group, store, sorted(requests), self._group))
        self.odd += [(store, group) for group in found]
        return found

    def _handled_as_group(self, store: int, requests: Group) -> tuple[int, Group]:
        if len(requests) > 1:
            self.groups.add((store, requests))
        return self._handled(store, requests)

    def _find_handled(self, store: int, requests: Group) -> tuple[int, Group]:
        """A group of requests is handled: returns the store afterwards, and the replies.

        The operation's state tells which node was asked, and how many groups the node has written decides nothing here.
        """
        asked = [self._requests.values[request] for request in requests]
        after, replies = self._at(0, store, lambda process: process.replica.handle(asked))
        said: list[int] = []
        for request, reply in zip(asked, replies, strict=True):
            assert isinstance(reply, OtherView) or (reply.round, reply.view, reply.disk) == (request.round, VIEW.id, DISKS[0])
            bare = msgspec.structs.replace(reply, disk=b"", **({"sequence": 0} if isinstance(reply, Ack) else {}))
            said.append(self._replies.number(bare, encode(bare)))
        return after, tuple(said)

    def _at(self, node: int, store: int, work: Callable[[Process], T]) -> tuple[int, T]:
        """Does this work on a replica and syncs. Returns its store afterwards, and the result of the work."""
        disk = self._disk(store)
        process = Process(self._replica(node, disk), disk, self._knowing)
        process.remember(self._contents.values[store].memory)
        result = work(process)
        disk.sync()
        after = self._intern_disk(disk, process.memory())
        self._grown.add((store, after))
        return after, result

    def _replica(self, node: int, disk: Disk) -> Replica:
        return Replica(disk, IDENTITIES[node], self._keyring, reply_bytes=1 << 20, copy_bytes=1 << 20, keep=lambda _: None)

    def _find_crashed(self, store: int) -> int:
        disk = self._disk(store)
        disk.crash(keeps=False)
        return self._intern_disk(disk, self._contents.values[store].memory and Memory())

    def _disk(self, store: int) -> Disk:
        content = self._contents.values[store]
        disk = Disk(IDENTITIES[0])  # any identity: it does not affect what is stored
        disk.stored = dict(content.synced)
        if content.memory is not None:
            disk.stored[layout.SEQUENCE_KEY] = layout.encode_sequence(content.memory.sequence)
        disk.write(dict(content.cached))
        return disk

    def _intern_disk(self, disk: Disk, memory: Memory | None) -> int:
        """Leaves out the sequence number: it counts writes and decides nothing here; states that differ only in it become one."""
        held = {pair for pair in disk.scan(b"") if pair[0] != layout.SEQUENCE_KEY}
        synced = frozenset(pair for pair in disk.stored.items() if pair[0] != layout.SEQUENCE_KEY)
        return self._contents.number(Content(synced, frozenset(held - synced), memory))

    def _find_gap(self, store: int) -> bool:
        return any(key.startswith(layout.GAP) for key, _ in self._contents.values[store].synced)

    def _find_salvaged(self, store: int, kept: bool) -> int:
        assert self._damage is not None
        disk = self._disk(store)
        self._damage.salvage(disk, kept=kept)
        return self._intern_disk(disk, None)

    def _find_left(self, stores: ThreeStores, owed: int) -> bool:
        """Whether some disk still has each value that was acknowledged or seen."""
        held = {value for store in stores for _, value in self._contents.values[store].synced}
        return self._owed.values[owed].found <= {records.sealed_of(value) for value in held if records.holds_value(value)}

    def _find_outlived(self, node: int, number: int) -> int:
        """An operation, after the salvage of a node's disk."""
        progress = self._progress.values[number]
        if isinstance(progress, str):
            return number
        return self._progress.number(replace(progress, past=progress.past | {node}))

    def _ended(self, node: int, number: int) -> int:
        progress = self._progress.values[number]
        return _ENDED if isinstance(progress, Progress) and node in progress.past else number

    def _find_filled(self, store: int, read: int, one: int, other: int) -> int:
        """A store, after its node has read both peers: one when its store was ``read`` (it is ``one`` now), and the other one."""
        damage = self._damage
        assert damage is not None
        before, *now = (self._replica(at, self._disk(each)) for at, each in ((1, read), (1, one), (2, other)))
        return self._at(0, store, lambda process: damage.fill(process.replica, before, now, VIEW))[0]

    def _find_exchanged(self, store: int, theirs: int) -> tuple[int, int]:
        damage, other = self._damage, self._disk(theirs)
        assert damage is not None
        replica = self._replica(1, other)
        after, _ = self._at(0, store, lambda process: damage.compare(process.replica, replica, VIEW))
        other.sync()
        return after, self._intern_disk(other, None)

    def _find_heard_sums(self, store: int, theirs: int) -> int:
        """A replica has another replica's sums, and next compares its own with them."""
        _, sums = self._at(0, theirs, lambda process: process.sums(VIEW))
        assert sums is not None
        sums = msgspec.structs.replace(sums, disk=b"", sequence=0)
        return self._at(0, store, lambda process: process.compare_with(sums))[0]

    def _find_compared(self, store: int) -> int:
        return self._at(0, store, lambda process: process.go_on(VIEW))[0]

    def _find_mended(self, store: int, theirs: int) -> int:
        """A replica has taken over another replica's record."""
        assert self._knowing is not None
        place = self._knowing.place
        _, fetched = self._at(0, theirs, lambda process: process.fetch(VIEW, place))
        assert fetched is not None
        return self._at(0, store, lambda process: process.mend(fetched, place))[0]

    def _find_sound(self, stores: ThreeStores) -> str | None:
        """What is wrong with the replicas' knowledge: a record may be told alone only if two disks hold it."""
        held = [{(key, records.sealed_of(value)) for key, value in self._contents.values[at].synced} for at in stores]
        for node, store in enumerate(stores):
            if self._contents.values[store].memory is not None:
                _, alone = self._at(node, store, lambda process: list(process.tells_alone()))
                if any(sum(pair in disk for disk in held) < QUORUM for pair in alone):
                    return f"{NODES[node]} would tell alone what no other disk holds"
        return None

    def _decide(
        self, operation: int, progress: Progress, heard: Collection[tuple[int, int]], last: int | None, given_up: Iterable[int]
    ) -> object:
        """The present round's decision on these replies (that of ``last`` comes last), with the nodes ``given_up`` silent."""
        round_ = self._ask(operation, progress.decisions).round(self._round_id(operation, progress), VIEW)
        decision = None
        for node, reply in sorted(heard, key=lambda pair: pair[0] == last):
            decision = round_.receive(msgspec.structs.replace(self._replies.values[reply], disk=DISKS[node]))
        for node in given_up:
            decision = decision or round_.give_up(DISKS[node])
        return decision

    def _decided(self, operation: int, progress: Progress, decision: object) -> Step:
        decisions = (*progress.decisions, self._decisions.number(decision, repr(decision)))
        further = Progress(progress.owed, decisions, past=progress.past)
        told = self._announced(operation, progress, decision)
        begin = decisions[: self._operations[operation].begins]
        try:
            asked = self._ask(operation, decisions).request.sent_in(ROUND, VIEW.id)
            if asked == self._ask(operation, begin).request.sent_in(ROUND, VIEW.id):
                further = Progress(progress.owed, begin, past=progress.past)
            return Step(self._progress.number(further), sent=self._joined(told, self._sent(operation, further)))
        except QuorumLost:
            return Step(_ENDED, sent=told)
        except StopIteration as end:
            return Step(_ENDED, sent=told, shown=self._shown(operation, end.value, progress.owed))

    def _announced(self, operation: int, progress: Progress, decision: object) -> int:
        """The notices of a round with this decision, to the replicas whose knowledge is followed."""
        put = self._ask(operation, progress.decisions).request
        if self._knowing is None or not isinstance(put, Put):
            return 0
        told = notices(put.sent_in(self._round_id(operation, progress), VIEW.id), decision, VIEW)
        numbers = [self._requests.number(notice, encode(notice)) for notice in told]
        return self._flights.number(frozenset(itertools.product(numbers, self._knowing.disks)))

    def _round_id(self, operation: int, progress: Progress) -> RoundId:
        """Each operation has a coordinator of its own; all coordinators use one disk, one after another."""
        if self._knowing is None:
            return ROUND
        return RoundId(ROUND.disk, b"boot %d" % operation, 1 + len(progress.decisions))

    def _shown(self, number: int, result: object, owed: int) -> int:
        operation = self._operations[number]
        broken = operation.breaks(result, self._owed.values[owed])
        if broken:
            raise _Broken(f"{operation.kind}: {broken}")
        shown = operation.obliges(result)
        return self._owed.number(shown)

    def _ask(self, operation: int, decisions: tuple[int, ...]) -> Ask:
        return self._operations[operation].ask_after(map(self._decisions.values.__getitem__, decisions))

    def _begun(self, number: int) -> Progress:
        progress = self._progress.values[number]
        assert isinstance(progress, Progress)
        return progress

    def _sent(self, operation: int, progress: Progress) -> int:
        """The requests of the present round if they write anything; other requests can only be answered."""
        ask = self._ask(operation, progress.decisions)
        request = ask.request.sent_in(self._round_id(operation, progress), VIEW.id)
        if isinstance(request, Get | GetSettled | ReadEpoch | ReadRevoked):
            return 0
        number = self._requests.number(request, encode(request))
        return self._flights.number(frozenset((number, node) for node in range(3) if ask.asks(DISKS[node])))

    def _find_settled(self, flight: int, stores: ThreeStores) -> int:
        """The requests under way, without those that would change nothing on arrival.

        A notice may arrive before the write that it tells of. It changes nothing then, but may later: so notices are kept. So is
        any other request, if disks lose what they had.
        """
        if self._damage is not None:
            return flight
        return self._flights.number(
            frozenset(
                (request, node)
                for request, node in self._flights.values[flight]
                if isinstance(self._requests.values[request], Settle) or self._arrived(request, stores[node]) != stores[node]
            )
        )

    def _find_joined(self, one: int, other: int) -> int:
        return self._flights.number(self._flights.values[one] | self._flights.values[other])

    def _find_together(self, one: int, other: int) -> int:
        owed = self._owed.values[one].and_also(self._owed.values[other])
        return self._owed.number(owed)

    def _find_orders(self, stores: ThreeStores) -> tuple[ThreeStores, list[int]]:
        """The first of all renamings of the stores, and the renamings that lead to it."""
        renamed: dict[ThreeStores, list[int]] = {}
        for renaming in self._renamings:
            to = _RENAMINGS[renaming]
            first, second, third = (stores[to.index(node)] for node in range(3))
            renamed.setdefault((first, second, third), []).append(renaming)
        return min(renamed.items())

    def _find_moved(self, move: Callable[[int], int], progress: tuple[int, ...]) -> tuple[int, ...]:
        """Operations with other numbers for the nodes: each as ``move`` returns it, those of a kind in order."""
        moved = list(map(move, progress))
        for start, end in self._twins:
            moved[start:end] = sorted(moved[start:end])
        return tuple(moved)

    def _find_moved_operation(self, to: Sequence[int], number: int) -> int:
        progress = self._progress.values[number]
        if isinstance(progress, str):
            return number
        decisions = tuple(self._find_moved_decision(to, decision) for decision in progress.decisions)
        heard = frozenset((to[node], reply) for node, reply in progress.heard)
        past = frozenset(to[node] for node in progress.past)
        return self._progress.number(Progress(progress.owed, decisions, heard, past))

    def _find_moved_decision(self, to: Sequence[int], number: int) -> int:
        decision = self._decisions.values[number]
        if not isinstance(decision, ReadResult):
            return number
        moved = replace(decision, repairs={DISKS[to[DISKS.index(disk)]]: lacks for disk, lacks in decision.repairs.items()})
        return self._decisions.number(moved, repr(moved))

    def _find_moved_reading(self, to: Sequence[int], number: int) -> int:
        reading = self._readings.values[number]
        return self._readings.number(reading and Reading(to[reading.node], to[reading.peer], reading.store))

    def _find_moved_flight(self, to: Sequence[int], flight: int) -> int:
        return self._flights.number(frozenset((request, to[node]) for request, node in self._flights.values[flight]))

    def _told(self, last: bytes) -> Iterator[str]:
        """The steps that lead to a state, and on to a forbidden answer."""
        codes = [last]
        while codes[-1] != self._came_from[codes[-1]]:
            codes.append(self._came_from[codes[-1]])
        state = self._decode(codes.pop())
        for code in reversed(codes):
            before, state = state, next(each for each in self._following(state) if self.canonical(each) == code)
            yield f"  {'; '.join(self._changes(before, state))}"

    def _changes(self, before: State, after: State) -> Iterator[str]:
        for number, was, now in zip(self._kinds, before.progress, after.progress, strict=True):
            progress = self._progress.values[now]
            if was != now and isinstance(progress, Progress):
                heard = ", ".join(f"{NODES[node]} {'given up' if r is None else 'heard'}" for node, r in sorted(progress.heard))
                yield f"{self._operations[number].kind}, round {len(progress.decisions) + 1}: {heard or 'begins'}"
            elif was != now:
                yield f"{self._operations[number].kind}: ends, or its coordinator dies"
        for node, was, now in zip(NODES, before.stores, after.stores, strict=True):
            if was != now:
                yield f"{node} {'knows' if self._on_disk(was) == self._on_disk(now) else 'holds'} something else"
