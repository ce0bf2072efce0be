"""A small world in which disks are replaced, explored exhaustively: the real joining, views, replicas, operations and rounds.

    disks        each node has one or more disks over time: an old one may live on when its slot is given to another
    operations   of clients, each by a coordinator that names the view it knows, and learns another view from a refusal
    joins        of the disks that want a slot; a joining disk can crash at any time, and starts again from what is durable

At each step one of these happens:

    a message is handled, and its answer arrives
    several messages are handled as a group (groups.py), and their answers arrive, or are lost
    an answer to a joining disk is lost, or never comes
    a node learns a peer's view (10)
    a joining disk crashes, or a node loses what it has not made durable, and what it knew
    a disk whose knowledge is followed takes a step of a comparison (knowledge.py)

A message to a node reaches one of the disks that the node has. A silent disk is one that takes no further step.

A joining is a generator and cannot be copied. But its next action follows from its request, from the view that it has entered
and from its copies; so each such state is kept as the first replies that lead to it.
"""

import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import getgeneratorlocals
from typing import NoReturn, TypeVar

import msgspec

from quorumvault.crypto.keys import Keyring
from quorumvault.model import QUORUM
from quorumvault.protocol import join, messages, records
from quorumvault.protocol.donors import Donor
from quorumvault.protocol.join import DONOR, Activate, Ask, Displaced, Enter, Joining, Merge, Step, Survey, Unread
from quorumvault.protocol.rollback_marks import NO_MARK, Mark
from quorumvault.protocol.rounds import ViewRefused
from quorumvault.protocol.steps import Ask as Round
from quorumvault.protocol.steps import QuorumLost
from quorumvault.protocol.views import NO_VIEW, Mode, View, first_view, votes
from quorumvault.server.replica.copy import Piece, read_piece
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Store
from tests.model import world
from tests.model.groups import Group, odd_groups
from tests.model.knowledge import Knowing, Memory, Process, notices
from tests.model.world import KEYRING, NODES, Operation, Owed, Table, Violation
from tests.rigs.faulty_store import FaultyStore

#: The disks of the first view, by node.
DISKS = dict(zip(NODES, world.DISKS, strict=True))
#: The result of an operation that found no quorum: it may or may not have happened.
LOST = object()
_NOTHING = Owed()
ResultT = TypeVar("ResultT")
FIRST = first_view(DISKS)
#: Where the unreadable part of a store ends.
DAMAGED = b"damaged"
_ROUND = messages.RoundId(b"", b"", 0)


@dataclass(frozen=True)
class Call:
    """An operation that a client asks for. ``after``: the number of the operation that the same client asks for first."""

    name: str
    operation: Operation
    after: int | None = None


@dataclass(frozen=True)
class Disk:
    """``pairs``: the disk's store. ``durable`` and ``view``: the view on disk and in the process; they should agree.

    ``memory``: what the process knows of settled records, if that is followed.
    """

    pairs: frozenset[tuple[bytes, bytes]] = frozenset()
    mode: Mode = Mode.JOINING
    durable: View | None = None
    view: View | None = None
    memory: Memory | None = None

    @property
    def key(self) -> Hashable:
        """Equal for equal disks."""
        return self.pairs, self.mode, self.durable and self.durable.id, self.view and self.view.id, self.memory


@dataclass(frozen=True)
class Progress:
    """The progress of an operation. ``heard``: replies of the present round by node. ``late``: requests under way, with nodes."""

    owed: Owed
    view: int
    decisions: tuple[int, ...] = ()
    heard: frozenset[tuple[str, int | None]] = frozenset()
    late: frozenset[tuple[int, str]] = frozenset()
    result: int | None = None
    broken: str | None = None


@dataclass(frozen=True)
class Joint:
    """The progress of a joining: the replies that it was sent, and the replies to its present question."""

    entered: int
    sent: tuple[frozenset[tuple[str, int]], ...] = ()
    heard: frozenset[tuple[str, int | None]] = frozenset()


@dataclass(frozen=True)
class Joiner:
    """A disk that wants the slot of its node."""

    node: str
    disk: bytes


#: The numbers of the disks' states, of the operations' progress, and of the joinings.
State = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_DONE = -1


@dataclass(eq=False)
class RejoinWorld:
    """Explores all states of some operations while some disks join.

    ``stored``: the content of old disks at the beginning, by node; ``owed``: what all answers owe because of that.
    ``copy_bytes``: 1 copies each pair by itself. ``lost``: nodes whose old disk does not live on. ``views``: the largest view
    number; without it, two disks that want one slot could take it from each other for ever. ``losses``: if false, no joining
    disk crashes, or waits in vain. ``unreadable``: nodes whose old disks cannot read their records. ``at_hand``: the content
    of the old disk of the first joiner's node, which does not run; both others remember ``remembered`` of it.
    ``knowing``: what these disks know of settled records is followed too; joining disks are numbered after the old ones.
    ``group``: the most requests that a disk takes into one write. ``learns``: a coordinator may hear of a newer view between two
    rounds of an operation, and not only by a refusal.
    """

    operations: list[Call]
    joiners: list[Joiner]
    stored: Mapping[str, Mapping[bytes, bytes]] = field(default_factory=dict)
    owed: Owed = _NOTHING
    copy_bytes: int = 1 << 20
    lost: Collection[str] = ()
    stragglers: bool = True
    losses: bool = True
    views: int = 3
    keyring: Keyring = KEYRING
    knowing: Knowing | None = None
    group: int = 2
    unreadable: Collection[str] = ()
    at_hand: Mapping[bytes, bytes] | None = None
    remembered: Mark = NO_MARK
    learns: bool = False

    def __post_init__(self) -> None:
        #: Disks, each with a group of requests that was tried with it.
        self.groups: set[tuple[int, int, Group]] = set()
        self._ids = [*DISKS.values(), *(joiner.disk for joiner in self.joiners)]
        self._nodes = [*DISKS, *(joiner.node for joiner in self.joiners)]
        self._live = {node: [at for at, name in enumerate(self._nodes) if name == node] for node in NODES}
        for node in self.lost:
            self._live[node].remove(NODES.index(node))
        self._alive = [at for node in NODES for at in self._live[node]]
        self._disks: Table[Disk] = Table()
        self._views: Table[View | None] = Table()
        self._view(None)
        self._progress: Table[Progress | None] = Table(None)
        self._joints: Table[Joint] = Table()
        self._requests: Table[messages.AnyRequest] = Table()
        self._replies: Table[messages.AnyReply | Unread] = Table()
        #: The answer to a survey by a store that can be read.
        self._whole = self._replies.number(Unread(), "whole")
        self._damaged = self._replies.number(Unread(frozenset({DAMAGED})), "damaged")
        self._decisions: Table[object] = Table()
        self._results: Table[object] = Table()
        self._canonical: dict[Hashable, Joint] = {}
        self._handled = cache(self._handle)
        self._odd = cache(self._find_odd)
        self._visits = cache(self._find_visits)
        self._delivered = cache(self._deliver)
        self._answered = cache(self._answer)
        self._begun = cache(self._begin)
        self._asking = cache(self._ask)
        self._asks_of = cache(self._find_asks)
        self._present = cache(self._find_present)
        self._messages = cache(self._find_messages)
        self._proposal = cache(self._propose)
        self._proposals = cache(self._find_proposals)
        self._moves = cache(self._find_moves)
        self._sent_to = cache(self._find_sent_to)
        self._heard_sums = cache(self._hear_sums)
        self._compared = cache(self._compare)
        self._mended = cache(self._mend)
        self._alone = cache(self._find_alone)

    # Exploring.

    def explore(self) -> int:
        """Visits every state. Returns their number; raises Violation with the steps that lead there."""
        for state in self._visit():
            self._check(state)
        return len(self._came_from)

    def apart(self) -> list[State]:
        """The states in which the first and the last node are in different views, and learning from each other mends nothing."""
        views = ((state, [self._disks.values[disk].view for disk in state[0][:3]]) for state in self._visit())
        return [state for state, (first, _, last) in views if first != last and not list(self._node_steps(state))]

    def _visit(self) -> Iterator[State]:
        """Yields every state as soon as it is found."""
        first = self._first()
        self._came_from: dict[State, tuple[State, str] | None] = {first: None}
        queue = [first]
        while queue:
            state = queue.pop()
            yield state
            for told, following in self._following(state):
                if following not in self._came_from:
                    self._came_from[following] = (state, told)
                    queue.append(following)

    def _first(self) -> State:
        known = [self.knowing.first(at) if self.knowing else None for at in range(len(self._ids))]
        stored = [frozenset(self.stored.get(node, {}).items()) for node in NODES]
        old = [Disk(pairs, Mode.ACTIVE, FIRST, FIRST, memory) for pairs, memory in zip(stored, known, strict=False)]
        new = [Disk(memory=memory and Memory()) for memory in known[len(DISKS) :]]
        joints = tuple(self._begun(at, self._held(disk)) for at, disk in enumerate(new))
        return tuple(map(self._held, [*old, *new])), tuple(0 for _ in self.operations), joints

    def _following(self, state: State) -> Iterator[tuple[str, State]]:
        disks, progresses, joints = state
        starts = [(at, start) for at in range(len(self.operations)) for start in self._starts(state, at)]
        for at, start in starts:
            for told, disk, held, progress in self._operation_steps(disks, at, start):
                yield told, (_put(disks, disk, held), _put(progresses, at, progress), joints)
        for at in range(len(self.joiners)):
            for told, changed, joint in self._join_steps(state, at):
                yield told, (changed, progresses, _put(joints, at, joint))
        for told, disk, held in self._node_steps(state):
            yield told, (_put(disks, disk, held), progresses, joints)
        for at in self._alive:
            yield from self._group_steps(state, at, starts)
        if self.learns:
            yield from self._coordinators_learn(state)
        if self.knowing is not None:
            for told, disk, held in self._learning_steps(disks, self.knowing):
                yield told, (_put(disks, disk, held), progresses, joints)

    def _check(self, state: State) -> None:
        for at, number in enumerate(state[1]):
            progress = self._progress.values[number]
            if progress is not None and progress.broken:
                self._violated(state, f"{self.operations[at].name}: {progress.broken}")
        if self.unreadable and self.at_hand is None:
            self._check_that_it_can_be_read(state)
        for at in self.knowing.disks if self.knowing else ():
            alone, disk = self._alone(at, state[0][at]), self._disks.values[state[0][at]]
            if alone and disk.view is not None:
                listed = [self._disks.values[state[0][self._ids.index(other)]] for other in disk.view.disks.values()]
                held = [{(key, records.sealed_of(value)) for key, value in each.pairs} for each in listed]
                if any(sum(pair in pairs for pairs in held) < QUORUM for pair in alone):
                    self._violated(state, f"{self._name(at)} would tell alone what no other disk of its view holds")

    def _check_that_it_can_be_read(self, state: State) -> None:
        """The acknowledged record is on a disk that the newest view lists, and can be read there."""
        disks = [self._disks.values[held] for held in state[0]]
        newest = max((disk.view for disk in disks if disk.view is not None), key=lambda view: view.id)
        readable = [
            disk
            for disk, name, node in zip(disks, self._ids, self._nodes, strict=True)
            if newest.lists(name) and (node not in self.unreadable or name not in DISKS.values())
        ]
        if not any(key.startswith(layout.RECORD) for disk in readable for key, _ in disk.pairs):
            self._violated(state, f"view {newest.number} has no disk that could read what was acknowledged")

    def _violated(self, state: State, what: str) -> NoReturn:
        steps = []
        where = self._came_from[state]
        while where is not None:
            steps.append(where[1])
            where = self._came_from[where[0]]
        raise Violation(f"{what}\n" + "\n".join(reversed(steps)))

    # Disks.

    def _handle(self, at: int, held: int, numbers: Group) -> tuple[int, Group]:
        """A group of requests reaches a disk: returns its state afterwards, and the replies."""
        requests = [self._requests.values[number] for number in numbers]
        after, replies = self._with_replica(at, held, lambda process: process.replica.handle(requests))
        return after, tuple(self._reply(self._remembering(_without_sequence(reply))) for reply in replies)

    def _remembering(self, reply: messages.AnyReply) -> messages.AnyReply:
        if self.at_hand is None or not isinstance(reply, messages.ViewIs):
            return reply
        return msgspec.structs.replace(reply, remembered={DISKS[self.joiners[0].node]: self.remembered})

    def _group_steps(self, state: State, at: int, starts: Sequence[tuple[int, int]]) -> Iterator[tuple[str, State]]:
        """A disk handles a group of the requests under way to it. Its answers arrive, or none does."""
        disks, progresses, joints = state
        node = self._nodes[at]
        requests = frozenset(self._proposals(disks, at)).union(*[self._sent_to(node, *begun) for begun in starts])
        asks = [self._asks_of(joiner, joint) for joiner, joint in enumerate(joints)]
        for group in self._odd(at, disks[at], requests.union([asked[node] for asked in asks if node in asked])):
            after, replies = self._handled(at, disks[at], group)
            told = f"{self._name(at)} takes as a group: {', '.join(repr(self._requests.values[number]) for number in group)}"
            following = _put(disks, at, after), progresses, joints
            yield f"{told}; no answer arrives", following
            said = dict(zip(group, replies, strict=True))
            for operation, start in starts:
                for request, where, late in self._messages(operation, start):
                    if where == node and request in said:
                        following = self._told_operation(operation, start, node, late, said.pop(request), following)
            for joiner, joint in enumerate(joints):
                request = self._asks_of(joiner, joint).get(node, _DONE)
                if request in said:
                    following = self._told_joiner(joiner, joint, node, said.pop(request), following)
            yield told, following

    def _find_sent_to(self, node: str, operation: int, start: int) -> frozenset[int]:
        return frozenset(request for request, where, _ in self._messages(operation, start) if where == node)

    def _find_messages(self, operation: int, start: int) -> list[tuple[int, str, int]]:
        """The requests of an operation under way: the request, its node, and its number again, or -1 if its answer counts."""
        visits = self._visits(operation, start)
        return [(late if late >= 0 else self._present(operation, start), node, late) for node, late in visits]

    def _told_operation(self, operation: int, start: int, node: str, late: int, reply: int, state: State) -> State:
        disks, progresses, joints = state
        progress = self._born(start)
        if late >= 0:
            heard = replace(progress, late=progress.late - {(late, node)})
        else:
            heard = self._hear(operation, progress, node, reply, self._present(operation, start))
        return disks, _put(progresses, operation, self._interned(operation, heard)), joints

    def _told_joiner(self, joiner: int, joint: int, node: str, reply: int, state: State) -> State:
        disks, progresses, joints = state
        disk = len(DISKS) + joiner
        held, following = self._answered(joiner, joint, node, reply, disks[disk])
        return _put(disks, disk, held), progresses, _put(joints, joiner, following)

    def _find_odd(self, at: int, held: int, requests: frozenset[int]) -> list[Group]:
        def handled(held: int, group: Group) -> tuple[int, Group]:
            if len(group) > 1:
                self.groups.add((at, held, group))
            return self._handled(at, held, group)

        return list(odd_groups(handled, held, sorted(requests), self.group))

    def _with_replica(self, at: int, held: int, work: Callable[[Process], ResultT]) -> tuple[int, ResultT]:
        disk = self._disks.values[held]
        memory = MemoryStore()
        memory.write(dict(disk.pairs))
        if disk.memory is not None:
            memory.write({layout.SEQUENCE_KEY: layout.encode_sequence(disk.memory.sequence)})
        durable = [disk.durable]

        def keep(identity: DiskIdentity) -> None:
            durable[0] = identity.view

        identity = DiskIdentity("c", self._nodes[at], self._ids[at], 1, disk.mode, disk.view)
        store: Store = memory
        if self._nodes[at] in self.unreadable and at < len(DISKS):
            store = FaultyStore(memory)
            store.corrupt |= {key for key, value in memory.scan(layout.RECORD) if records.holds_value(value)}
        replica = Replica(store, identity, self.keyring, reply_bytes=1 << 20, copy_bytes=self.copy_bytes, keep=keep)
        process = Process(replica, memory, self.knowing)
        process.remember(disk.memory)
        result = work(process)
        pairs = frozenset(pair for pair in memory.scan(b"") if pair[0] != layout.SEQUENCE_KEY)
        mine = replica.identity
        return self._held(Disk(pairs, mine.mode, durable[0], mine.view, process.memory())), result

    def _node_steps(self, state: State) -> Iterator[tuple[str, int, int]]:
        """A node learns the view of another node's disk, or loses what it has not made durable."""
        return iter(self._moves(state[0]))

    def _find_moves(self, disks: tuple[int, ...]) -> list[tuple[str, int, int]]:
        moves = []
        for at in self._alive:
            disk = self._disks.values[disks[at]]
            crashed = replace(disk, view=disk.durable, memory=disk.memory and Memory())
            if crashed != disk:
                moves.append((f"{self._name(at)} crashes, and forgets what it has not on disk", at, self._held(crashed)))
            for request, whose in self._proposals(disks, at).items():
                after, _ = self._handled(at, disks[at], (request,))
                view = self._disks.values[after].view
                if after != disks[at] and view is not None:
                    moves.append((f"{self._name(at)} learns view {_say(view)} of {whose}", at, after))
        return moves

    def _find_proposals(self, disks: tuple[int, ...], at: int) -> dict[int, str]:
        """The views of other nodes' disks that this disk may learn, as requests to it, and whose they are."""
        learnt = {}
        for other in self._alive:
            request = self._proposal(at, disks[at], other, disks[other])
            if request is not None:
                learnt[request] = self._name(other)
        return learnt

    def _propose(self, at: int, held: int, other: int, theirs: int) -> int | None:
        """The request by which a disk may learn another disk's view."""
        mine, view = self._disks.values[held], self._disks.values[theirs].view
        if mine.mode is not Mode.ACTIVE or view in (None, mine.view) or self._nodes[other] == self._nodes[at]:
            return None
        return self._request(messages.ProposeView(_ROUND, NO_VIEW, view))

    # What disks know of settled records.

    def _learning_steps(self, disks: tuple[int, ...], knowing: Knowing) -> Iterator[tuple[str, int, int]]:
        for at, other in itertools.permutations(self._alive, 2):
            if self._nodes[at] == self._nodes[other]:
                continue
            if knowing.compares and at in knowing.disks:
                held = self._heard_sums(at, disks[at], other, disks[other])
                if held is not None:
                    yield f"{self._name(at)} hears the sums of {self._name(other)}", at, held
            if knowing.mends:
                held = self._mended(at, disks[at], other, disks[other])
                if held is not None:
                    yield f"{self._name(at)} takes over the record of {self._name(other)}", at, held
        for at in knowing.disks if knowing.compares else ():
            yield f"{self._name(at)} goes on with its comparison", at, self._compared(at, disks[at])

    def _hear_sums(self, at: int, held: int, other: int, theirs: int) -> int | None:
        """The disk hears a peer's sums. The peer must vote in the view in which it was asked, or there is no comparison."""
        view = self._disks.values[theirs].view
        _, sums = self._with_replica(other, theirs, lambda process: process.sums(view))
        if sums is None:
            return None
        alike = msgspec.structs.replace(sums, disk=b"", sequence=0)
        return self._with_replica(at, held, lambda process: process.compare_with(alike))[0]

    def _compare(self, at: int, held: int) -> int:
        view = self._disks.values[held].view
        return self._with_replica(at, held, lambda process: process.go_on(view))[0]

    def _mend(self, at: int, held: int, other: int, theirs: int) -> int | None:
        """The disk takes over a peer's record. Only active disks are compared, and so mended."""
        assert self.knowing is not None
        view, place = self._disks.values[theirs].view, self.knowing.place
        _, fetched = self._with_replica(other, theirs, lambda process: process.fetch(view, place))
        if fetched is None or self._disks.values[held].mode is not Mode.ACTIVE:
            return None
        return self._with_replica(at, held, lambda process: process.mend(fetched, place))[0]

    def _find_alone(self, at: int, held: int) -> list[tuple[bytes, bytes]]:
        """The records that a disk tells alone, if it votes."""
        disk = self._disks.values[held]
        if not votes(self._ids[at], disk.mode, disk.view):
            return []
        return self._with_replica(at, held, lambda process: list(process.tells_alone()))[1]

    # Operations, each by a coordinator.

    def _operation_steps(self, disks: tuple[int, ...], at: int, start: int) -> Iterator[tuple[str, int, int, int]]:
        for node, late in self._visits(at, start):
            for disk in self._live[node]:
                held, progress = self._delivered(at, start, node, disk, disks[disk], late)
                what = "a late message of " if late >= 0 else ""
                yield f"{what}{self.operations[at].name} at {self._name(disk)}", disk, held, progress

    def _starts(self, state: State, at: int) -> list[int]:
        """The possible progress of an operation before its next message: if it begins now, it may know the view of any disk."""
        disks, progresses, _ = state
        if progresses[at]:
            return [progresses[at]]
        if not self._may_begin(at, progresses):
            return []
        seen = {self._view(self._disks.values[disks[number]].view) for number in self._alive} - {0}
        return [self._interned(at, Progress(self._owed(progresses), view)) for view in sorted(seen)]

    def _coordinators_learn(self, state: State) -> Iterator[tuple[str, State]]:
        disks, progresses, joints = state
        for at, interned in enumerate(progresses):
            progress = self._progress.values[interned]
            if progress is None or progress.result is not None or progress.heard:
                continue
            known = self._view_of(progress)
            for view in {self._view(self._disks.values[disks[number]].view) for number in self._alive} - {0}:
                newer = self._views.values[view]
                if newer is not None and newer.id > known.id:
                    learnt = self._interned(at, replace(progress, view=view))
                    told = f"the coordinator of {self.operations[at].name} learns view {_say(newer)}"
                    yield told, (disks, _put(progresses, at, learnt), joints)

    def _may_begin(self, at: int, progresses: tuple[int, ...]) -> bool:
        first = self.operations[at].after
        before = None if first is None else self._progress.values[progresses[first]]
        return first is None or (before is not None and before.result is not None)

    def _find_visits(self, at: int, interned: int) -> list[tuple[str, int]]:
        """Where a message can arrive: (node, -1) for the present round, or (node, number of the request) for a decided round."""
        progress = self._born(interned)
        visits = [(node, number) for number, node in sorted(progress.late)]
        if progress.result is None:
            heard, round_, view = {node for node, _ in progress.heard}, self._round(at, progress), self._view_of(progress)
            visits += [(node, -1) for node in NODES if node not in heard and round_.asks(view.disks[node])]
        return visits

    def _deliver(self, at: int, interned: int, node: str, disk: int, held: int, late: int) -> tuple[int, int]:
        """The effect of an operation's message on the disk that it reaches, and on the operation."""
        progress = self._born(interned)
        if late >= 0:
            after, _ = self._handled(disk, held, (late,))
            return after, self._interned(at, replace(progress, late=progress.late - {(late, node)}))
        request = self._present(at, interned)
        after, (reply,) = self._handled(disk, held, (request,))
        return after, self._interned(at, self._hear(at, progress, node, reply, request))

    def _find_present(self, at: int, interned: int) -> int:
        """The request of an operation's present round."""
        progress = self._born(interned)
        round_id = _round_id(at, len(progress.decisions))
        return self._request(self._round(at, progress).request.sent_in(round_id, self._view_of(progress).id))

    def _hear(self, at: int, progress: Progress, node: str, reply: int, request: int) -> Progress:
        heard = progress.heard | {(node, reply)}
        view, ask = self._view_of(progress), self._round(at, progress)
        round_ = ask.round(_round_id(at, len(progress.decisions)), view)
        decision: object = None
        for who, said in sorted(heard, key=lambda pair: (pair == (node, reply), pair)):
            assert said is not None
            answer, disk = self._replies.values[said], view.disks[who]
            assert not isinstance(answer, Unread)
            decision = None
            if isinstance(answer, messages.OtherView):
                decision = round_.receive(answer)
            if decision is None and (isinstance(answer, messages.OtherView | messages.NotVoting) or answer.disk != disk):
                decision = round_.give_up(disk)
            elif decision is None:
                decision = round_.receive(answer)
        if decision is None:
            return replace(progress, heard=heard)
        late = progress.late
        if self.stragglers and isinstance(self._requests.values[request], messages.Put | messages.WriteBack):
            asked = {who for who, _ in heard}
            late |= {(request, other) for other in NODES if other not in asked and ask.asks(view.disks[other])}
        if self.knowing is not None and isinstance(put := self._requests.values[request], messages.Put):
            told = [self._request(notice) for notice in notices(put, decision, view)]
            late |= set(itertools.product(told, (self._nodes[disk] for disk in self.knowing.disks)))
        newer = self._view(decision.view) if isinstance(decision, ViewRefused) else progress.view
        decisions = (*progress.decisions, self._decisions.number(decision, repr(decision)))
        return Progress(progress.owed, newer, decisions, frozenset(), late)

    def _interned(self, at: int, progress: Progress) -> int:
        """Interns progress after all automatic steps: a round that names another view than the coordinator knows, and the end."""
        while progress.result is None:
            result = self._result(at, progress.decisions)
            if result is not None:
                answer = self._results.values[result]
                broken = None if answer is LOST else self.operations[at].operation.breaks(answer, progress.owed)
                # Its history no longer matters, except for the requests that are still under way.
                progress = Progress(Owed(), 0, (), frozenset(), progress.late, result, broken)
                break
            view, ask = self._view_of(progress), self._round(at, progress)
            if ask.view in (None, view.id):
                break
            refused = ViewRefused(view)
            progress = replace(progress, decisions=(*progress.decisions, self._decisions.number(refused, repr(refused))))
        return self._progress.number(progress)

    def _round(self, at: int, progress: Progress) -> Round:
        return self.operations[at].operation.ask_after(map(self._decisions.values.__getitem__, progress.decisions))

    def _result(self, at: int, decisions: tuple[int, ...]) -> int | None:
        try:
            self._round(at, Progress(Owed(), 0, decisions))
        except StopIteration as end:
            return self._results.number(end.value, repr(end.value))
        except QuorumLost:
            return self._results.number(LOST)
        return None

    def _owed(self, progresses: tuple[int, ...]) -> Owed:
        owed = self.owed
        for at, interned in enumerate(progresses):
            progress = self._progress.values[interned]
            if progress is not None and progress.result is not None:
                result = self._results.values[progress.result]
                owed = owed if result is LOST else owed.and_also(self.operations[at].operation.obliges(result))
        return owed

    # Disks that join.

    def _join_steps(self, state: State, at: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
        disks, _, joints = state
        if joints[at] == _DONE:
            return
        disk, name = len(DISKS) + at, self._name(len(DISKS) + at)
        fresh = self._begun(at, disks[disk])
        if fresh != joints[at] and self.losses:
            yield f"{name} crashes", disks, fresh
        step = self._asking(at, joints[at])
        if isinstance(step, Activate):
            held, _ = self._with_replica(disk, disks[disk], lambda process: process.replica.activate(step.view, {}))
            yield f"{name} is active in {_say(step.view)}", _put(disks, disk, held), _DONE
            return
        for node, request in self._asks_of(at, joints[at]).items():
            if self.losses:
                held, joint = self._answered(at, joints[at], node, None, disks[disk])
                yield f"{name} hears nothing from {node}", _put(disks, disk, held), joint
            for other in self._live[node]:
                theirs, (reply,) = self._handled(other, disks[other], (request,))
                told, after = f"{name} asks {self._name(other)}: {step.request}", _put(disks, other, theirs)
                held, joint = self._answered(at, joints[at], node, reply, disks[disk])
                yield told, _put(after, disk, held), joint
                if theirs != disks[other] and self.losses:
                    held, joint = self._answered(at, joints[at], node, None, disks[disk])
                    yield f"{told}, and the answer is lost", _put(after, disk, held), joint

    def _find_asks(self, at: int, joint: int) -> dict[str, int]:
        """The questions of a joining disk, by the nodes not heard yet: none once it is done, or if they need a view too many."""
        step = None if joint == _DONE else self._asking(at, joint)
        if not isinstance(step, Ask):
            return {}
        asked = step.request.sent_in(_ROUND, step.request.view)
        if isinstance(asked, messages.ProposeView) and asked.proposed.number > self.views:
            return {}
        heard = {node for node, _ in self._joints.values[joint].heard}
        return dict.fromkeys([node for node in step.nodes if node not in heard], self._request(asked))

    def _answer(self, at: int, number: int, node: str, reply: int | None, held: int) -> tuple[int, int]:
        """The effect of an answer on the joining and on its disk, with everything done before the next question."""
        joint, step = self._joints.values[number], self._asking(at, number)
        heard = joint.heard | {(node, reply)}
        assert isinstance(step, Ask)
        if len(heard) < len(step.nodes):
            return held, self._joints.number(replace(joint, heard=heard))
        told = frozenset((who, said) for who, said in heard if said is not None)
        steps, _ = self._drive(self.joiners[at], joint)
        sent = (*joint.sent, told)
        try:
            doing = steps.send({who: self._replies.values[said] for who, said in told})
            while not isinstance(doing, Ask | Activate) or (isinstance(doing, Ask) and doing.nodes == (DONOR,)):
                said = self._said_at_once(doing)
                if isinstance(doing, Enter | Merge):
                    held = self._do(len(DISKS) + at, held, doing)
                doing, sent = steps.send({who: self._replies.values[reply] for who, reply in said}), (*sent, said)
        except Displaced:
            return held, _DONE
        return held, self._canonical_joint(self.joiners[at], steps, doing, Joint(joint.entered, sent))

    def _said_at_once(self, step: Step) -> frozenset[tuple[str, int]]:
        """The answers to questions between two messages: can stores be read, and what does the old disk at hand hold?"""
        if isinstance(step, Survey):
            return frozenset((who, self._damaged if who in self.unreadable else self._whole) for who in step.nodes)
        if not isinstance(step, Ask) or self.at_hand is None or not isinstance(step.request, messages.Copy):
            return frozenset()
        memory = MemoryStore()
        memory.write(self.at_hand)
        piece = read_piece(memory, step.request.after, self.copy_bytes)
        assert isinstance(piece, Piece)
        return frozenset({(DONOR, self._reply(messages.Copied(_ROUND, step.request.view, DISKS[self.joiners[0].node], *piece)))})

    def _do(self, disk: int, held: int, step: Enter | Merge) -> int:
        def work(process: Process) -> None:
            if isinstance(step, Enter):
                process.replica.enter(step.view)
            else:
                assert process.replica.merge(step.keys, step.values) is not None

        return self._with_replica(disk, held, work)[0]

    def _canonical_joint(self, joiner: Joiner, steps: Joining, step: Ask | Activate, joint: Joint) -> int:
        known = getgeneratorlocals(steps)
        entered, copies = known["entered"], known["copies"]
        asks = (
            (step.nodes, messages.encode(step.request.sent_in(_ROUND, step.request.view)))
            if isinstance(step, Ask)
            else step.view.id
        )
        key = (joiner, asks, entered and entered.id, copies.view, *map(frozenset, (copies.after.items(), copies.done)))
        joint = self._canonical.setdefault(key, joint)
        return self._joints.number(joint)

    def _begin(self, at: int, held: int) -> int:
        """A joining that starts from what is durable."""
        joint = Joint(self._view(self._disks.values[held].durable))
        return self._canonical_joint(self.joiners[at], *self._drive(self.joiners[at], joint), joint)

    def _drive(self, joiner: Joiner, joint: Joint) -> tuple[Joining, Ask | Activate]:
        """The joining at this progress, and its present step."""
        donor = Donor(joiner.node, DISKS[joiner.node], FIRST, Mark(1, 1)) if self.at_hand is not None else None
        steps = join.join(joiner.node, joiner.disk, self._views.values[joint.entered], donor)
        step = next(steps)
        for told in joint.sent:
            step = steps.send({node: self._replies.values[reply] for node, reply in told})
        assert isinstance(step, Ask | Activate)
        return steps, step

    def _ask(self, at: int, joint: int) -> Ask | Activate:
        return self._drive(self.joiners[at], self._joints.values[joint])[1]

    # Names and numbers.

    def _born(self, interned: int) -> Progress:
        progress = self._progress.values[interned]
        assert progress is not None
        return progress

    def _view_of(self, progress: Progress) -> View:
        view = self._views.values[progress.view]
        assert view is not None
        return view

    def _held(self, disk: Disk) -> int:
        return self._disks.number(disk, disk.key)

    def _view(self, view: View | None) -> int:
        return self._views.number(view, view and view.id)

    def _request(self, request: messages.AnyRequest) -> int:
        return self._requests.number(request, messages.encode(request))

    def _reply(self, reply: messages.AnyReply) -> int:
        return self._replies.number(reply, messages.encode(reply))

    def _name(self, at: int) -> str:
        return self._nodes[at] if at < len(DISKS) else f"the new disk of {self._nodes[at]}"


def _put(numbers: tuple[int, ...], at: int, number: int) -> tuple[int, ...]:
    return (*numbers[:at], number, *numbers[at + 1 :])


def _without_sequence(reply: messages.AnyReply) -> messages.AnyReply:
    """Leaves out the sequence number: it counts writes and decides nothing here; states that differ only in it become one."""
    match reply:
        case messages.ViewIs():
            return msgspec.structs.replace(reply, mark=NO_MARK)
        case messages.Ack():
            return msgspec.structs.replace(reply, sequence=0)
    return reply


def _say(view: View) -> str:
    return f"{view.number} of {view.joiner!r}"


def _round_id(at: int, round_number: int) -> messages.RoundId:
    return messages.RoundId(b"c%d" % at, b"boot", round_number)
