"""A node: a lasting disk and clock, and the process on it that coordinates and replicates until it dies.

The coordinator, its exchanges, its rounds, the gate to the replica, group commit and the replica are the real ones. The parts
between them are simulated: the storage thread (storage.py) and the links to the other nodes (Line, in place of peers/link.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from quorumvault.crypto.keys import Keyring
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import AnyReply, AnyRequest, GetSettled, Message, Outgoing, Put, RaiseEpoch, RoundId, Settled
from quorumvault.protocol.peer import NoReply, OnReply, Peer
from quorumvault.protocol.records import holds_value, sealed_of
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import DISK_BYTES, Mode, View, first_view
from quorumvault.server.coordinator.coordinator import Coordinator, Identity
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.coordinator.vault import Missing, Retokenized, Tokenized
from quorumvault.server.replica.local_peer import LocalPeer
from quorumvault.server.replica.record_cache import RecordCache
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from tests.simulation.comparing import learn_settled
from tests.simulation.disks import Disk
from tests.simulation.knobs import Knobs
from tests.simulation.network import Network
from tests.simulation.storage import Storage
from tests.simulation.timeline import Schedule, Timeline, drive
from tests.simulation.witnesses import Witnesses

DISKS = {name: name.encode().ljust(DISK_BYTES, b".") for name in NODE_NAMES}
#: FORMER_VIEW precedes the view of all disks; the last node had another disk then. Some coordinators know only FORMER_VIEW.
FORMER_VIEW = first_view({**DISKS, NODE_NAMES[-1]: b"lost".ljust(DISK_BYTES, b".")})
VIEW = View(FORMER_VIEW.number + 1, DISKS[NODE_NAMES[-1]], DISKS)
#: The share of starts that leave a coordinator with the former view.
_BEHIND = 0.15
#: When the simulation begins, in milliseconds since 1970.
_EPOCH_MS = 1_700_000_000_000

Cluster = dict[str, "Node"]


class Asked(Protocol):
    """The operations that clients ask for: see Vault."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized: ...
    async def detokenize(self, owner: Owner, tokens: Sequence[str]) -> list[bytes | Missing]: ...
    async def retokenize(self, owner: Owner, tokens: Sequence[str]) -> Retokenized: ...
    async def epoch(self, owner: Owner) -> int: ...
    async def rotate(self, owner: Owner, from_epoch: int) -> int: ...


class Way(Peer, Protocol):
    """The path from a process to a replica."""

    def break_off(self) -> object:
        """The remote process is dead. Whatever waits for it may notice that."""


class Observer:
    """A coordinator's observer. It counts rare events in ``branches``, and reports missed writes to whoever hands them off."""

    def __init__(self, branches: Counter[str]) -> None:
        self._branches = branches
        self.missed: Callable[[str, bytes, Put | RaiseEpoch], object] = lambda node, disk, request: None
        self.leaves: Callable[[], object] = lambda: None
        self.counted: Callable[[bytes, Mark], object] = lambda disk, mark: None
        self.settles: Callable[[RoundId], object] = lambda round_id: None

    def read_repaired(self, node: str, records: int) -> None:
        self._branches["write-back"] += 1

    def committed(self, round_id: RoundId) -> None:
        self.settles(round_id)

    def looked_up(self, alone: int, by_quorum: int) -> None:
        self._branches["told alone"] += alone

    def fence_retried(self) -> None:
        self._branches["fence retry"] += 1

    def left_over(self) -> None:
        self._branches["left over"] += 1
        self.leaves()

    def hedged(self, hedge: Hedge) -> None:
        self._branches[f"hedge {hedge}"] += 1

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        self.counted(disk, mark)

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        self._branches["committed by two"] += 1
        self.missed(node, disk, request)


@dataclass(eq=False)
class Node:
    """The lasting part of a node. ``process`` is None while none runs.

    ``left_behind``: processes on disks that were replaced while the processes stood still. When one goes on, messages to the
    node reach it as often as they reach the new process, until it ends.

    ``clock_error``: by how many milliseconds the clock is wrong. ``cuts_power``: all nodes die when this one next answers.
    """

    name: str
    timeline: Timeline
    network: Network
    rng: Random
    keyring: Keyring
    cluster: Cluster
    witnesses: Witnesses
    branches: Counter[str]
    knobs: Knobs
    comparing: Random
    clock_error: int = 0
    cuts_power: bool = False
    process: Process | None = None
    left_behind: list[Process] = field(default_factory=list)
    down_since: float = 0.0
    #: Called with each new process, for whatever has to run beside its coordinator.
    started: Callable[[Process], object] = lambda process: None
    #: How processes of this node use an API key of this id, in plays about keys (revoking.py).
    use_key: Callable[[Process, str], str] = lambda process, key_id: ""
    revoke_key: Callable[[Process, str], Coroutine[Any, Any, None]] = lambda process, key_id: _nothing()
    #: What carries out the requests of clients at a process of this node.
    vault: Callable[[Process], Asked] = lambda process: process.coordinator
    #: How many processes the node has had: this makes their nonces differ, whatever the disk says.
    starts: int = 0

    def __post_init__(self) -> None:
        #: The durable state: store and identity.
        self.disk = Disk(DiskIdentity("simulated", self.name, DISKS[self.name], 0, Mode.ACTIVE, VIEW))
        #: Former disks, as they were when they were lost, or when an older copy was put back in their place.
        self.former: list[Disk] = []

    @property
    def identity(self) -> DiskIdentity:
        """The identity of the present disk."""
        return self.disk.identity

    def holders(self, key: bytes, sealed: bytes) -> set[bytes]:
        """The ids of the node's disks, former ones too, that hold these sealed bytes durably. A disk also counts if it held them
        before they rotted, and never calls them absent.

        When an older copy is put back in a disk's place, the disk counts with its content before that: the copy never votes.
        """
        return {
            disk.identity.disk
            for disk in (*self.former, self.disk)
            if (key in disk.rotten and disk.unknown(key))
            or ((record := disk.stored.get(key)) is not None and (key in disk.rotten or sealed_of(record) == sealed))
        }

    @property
    def at_hand(self) -> Process | None:
        """The process that receives what is sent to this node."""
        others = [process for process in self.left_behind if process.schedule.alive and not process.schedule.stopped]
        if not others:
            return self.process
        return self.rng.choice([*others, self.process or others[0]])

    def lose_disk(self, disk: bytes) -> None:
        """Replaces the disk by an empty one that joins under this id: a lost disk gets a new identity."""
        self.crash()
        self.former.append(self.disk)
        self.disk = Disk(DiskIdentity("simulated", self.name, disk, 0, Mode.JOINING, None))

    def leave_behind(self, disk: bytes) -> Process | None:
        """Replaces the disk in the same way, but its process does not die: it stands still, and does not know of this."""
        process, self.process = self.process, None
        if process is not None:
            process.schedule.stopped = True
            self.left_behind.append(process)
        self.lose_disk(disk)
        return process

    def start(self) -> None:
        if self.process is None and self.open_disk():
            self.starts += 1
            self.process = self.make_process()
            if self.disk.there:
                learn_settled(self.process, self.comparing)
            self.started(self.process)

    def make_process(self) -> Process:
        return Process(self)

    def open_disk(self) -> bool:
        """Opens the disk as a process does at its start. Returns False if the process ends there."""
        self.disk.salvage()
        self.disk.keep(replace(self.identity, incarnation=self.identity.incarnation + 1))
        return True

    def crash(self) -> None:
        """Ends the process at once, whatever it was doing. Clients and peers may notice by their connections, or may not."""
        if self.process is not None:
            self.end(self.process)

    def end(self, process: Process) -> None:
        """Ends one process of this node in the same way; it may be one that was left behind."""
        process.schedule.alive = False
        if process is self.process:
            self.process, self.down_since = None, self.timeline.now
        if process.disk.unsynced:
            self.branches["crash before a sync"] += 1
        process.disk.crash(keeps=self.rng.random() < 0.5)
        for broken in process.calls.values():
            self.timeline.at(self.timeline.now + self.network.delay(), None, broken)
        for other in self.cluster.values():
            if other.process is not None:
                other.process.lines[self.name].break_off()

    def cut_power(self) -> None:
        """Ends the processes of all nodes at once."""
        for node in self.cluster.values():
            node.crash()

    def stop(self) -> None:
        if self.process is not None:
            self.process.schedule.stopped = True

    def go_on(self) -> None:
        if self.process is not None and self.process.schedule.stopped:
            self.process.schedule.go_on()

    def wall_ms(self) -> int:
        return _EPOCH_MS + int(self.timeline.now * 1000) + self.clock_error


@dataclass(slots=True)
class _Armed:
    """``fall`` is called at the first counted message after ``left`` others."""

    counts: Callable[[Message], bool]
    left: int
    fall: Callable[[], object]


class Process:
    """One life of a node. ``calls``: by operation, the function that tells its client that the connection broke.

    ``established``: whether the replica answers anybody (peers/standing.py).
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.disk = node.disk
        self.schedule = self.make_schedule()
        self.calls: dict[int, Callable[[], object]] = {}
        self._armed: _Armed | None = None
        self.observer = Observer(node.branches)
        self._clock = HybridClock()
        self.established = True
        self.boot = boot_nonce(node.starts)
        identity = node.identity
        if self.disk.there:
            self.take_disk()
        self.gate = LocalPeer(
            node.name, lambda: self.own_storage, lambda: identity.disk, lambda: self.established, self._clock, node.wall_ms
        )
        self.lines = self.make_lines()
        self.coordinator: Coordinator = PatientCoordinator(
            Identity(node.name, identity.disk, self.boot),
            self.lines,
            FORMER_VIEW if identity.view == VIEW and node.rng.random() < _BEHIND else identity.view,
            node.keyring,
            node.knobs.timeouts,
            self._clock,
            node.wall_ms,
            self.observer,
        )

    def make_schedule(self) -> Schedule:
        return Schedule(self.node.timeline)  # type: ignore[abstract]

    def make_lines(self) -> Mapping[str, Way]:
        """The paths to all replicas."""
        return {name: Line(self, name) for name in NODE_NAMES}

    def take_disk(self) -> None:
        """Serves its disk from now on."""
        self.replica = make_replica(self.node, self.disk.identity)
        self.storage = Storage(self, self.replica, self.node.knobs.limits)

    @property
    def own_storage(self) -> Storage | None:
        """The storage, or None while the node has no disk."""
        return self.storage if self.disk.there else None

    @property
    def own_replica(self) -> Replica | None:
        """The replica, or None while the node has no disk."""
        return self.replica if self.disk.there else None

    def call(
        self, op: int, work: Callable[[], Coroutine[Any, Any, object]], done: Callable[[object, Exception | None], object]
    ) -> None:
        """A client's request arrives."""

        def ended(result: object, error: Exception | None) -> None:
            self.calls.pop(op, None)
            self.node.witnesses.close(op)
            done(result, error)
            if self.node.cuts_power:
                self.node.cuts_power = False
                self.node.cut_power()

        steps_of = self.node.witnesses.steps_of
        self.node.timeline.at(self.node.timeline.now, self.schedule, lambda: drive(steps_of(op, work()), ended))

    def submit(self, request: AnyRequest, on_reply: OnReply) -> None:
        """A coordinator's request arrives."""
        self.gate.submit(request, on_reply)

    def witnessed(self, request: GetSettled, on_reply: OnReply) -> OnReply:
        """Watches what the replica tells alone: each record in the reply has to be a value on two disks by then."""
        view = self.disk.identity.view

        def hear(reply: AnyReply | NoReply) -> None:
            if isinstance(reply, Settled) and view is not None:
                keys = layout.record_keys(request.owner, request.epochs, request.digests)
                for key, record in zip(keys, reply.records, strict=True):
                    if record is not None and key not in self.disk.rotten:
                        holders = [node.holders(key, sealed_of(record)) for node in self.node.cluster.values()]
                        listed = self.disk.identity.view or view
                        voices = len(set().union(*holders) & set(listed.disks.values())) if holds_value(record) else 0
                        self.node.witnesses.told_alone(key, voices)
            on_reply(reply)

        return hear

    def may_send(self, message: Message) -> bool:
        """Returns False once the process has died while sending."""
        armed = self._armed
        if armed is not None and self.schedule.alive and armed.counts(message):
            armed.left -= 1
            if armed.left < 0:
                self._armed = None
                armed.fall()
        return self.schedule.alive

    def arm(self, counts: Callable[[Message], bool], left: int, fall: Callable[[], object] | None = None) -> None:
        """Lets the process send ``left`` more counted messages. Before the next one it dies, or ``fall`` is called instead."""
        self._armed = _Armed(counts, left, fall or (lambda: self.node.end(self)))

    def disarm(self) -> None:
        self._armed = None


class PatientCoordinator(Coordinator):
    """A real coordinator, except that reads of large values wait for others without a limit: asyncio.timeout needs a task."""

    async def _wait_for_large_reads(self, owner: Owner) -> None:
        await self._large_reads.enter(owner, 1)


async def _nothing() -> None:
    """Does nothing: there are no keys."""


def make_replica(node: Node, identity: DiskIdentity) -> Replica:
    disk = node.disk
    disk.corrupt_reads = 0  # each process opens the disk anew
    limits = node.knobs.limits
    return Replica(
        disk,
        identity,
        node.keyring,
        reply_bytes=limits.reply_bytes,
        copy_bytes=limits.copy_bytes,
        cache=RecordCache(limits.cache_bytes),
        keep=disk.keep,
        has_room=lambda: not disk.nearly_full,
    )


def boot_nonce(starts: int) -> bytes:
    """A nonce that differs at each start: with the disk and a counter it makes round ids unique."""
    return b"boot%d" % starts


class Line:
    """The path from a process to one replica, perhaps its own. Implements Peer: reports one outcome for each request.

    A reply finds its request by its round. A repeated message is handled twice, and its second reply finds no request.
    """

    def __init__(self, process: Process, to: str) -> None:
        self.node = to
        self._process = process
        self._wire = (process.node.name, to)
        self._local = to == process.node.name
        self._waiting: dict[object, OnReply] = {}

    @property
    def up(self) -> bool:
        if self._local:
            return self._process.gate.up
        node = self._process.node
        away = node.cluster[self.node].process is None and node.timeline.now > node.cluster[self.node].down_since + 0.01
        return not away and not node.network.silent(self._wire)

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        process, request = self._process, outgoing.request
        hear = process.node.witnesses.asked(request, on_reply)
        if isinstance(request, Put) and not request.digests:
            process.node.branches["repeats that are settled"] += 1
        if self._local:
            if isinstance(request, GetSettled):
                hear = process.witnessed(request, hear)
            process.submit(request, hear)
            return
        if not process.may_send(request):
            return
        if not self.up:
            on_reply(NoReply(sent=False))
            return
        self._waiting[self.correlation(request)] = hear
        node = process.node
        if not node.network.carry(self._wire, self._arrive, request) and node.rng.random() < 0.3:
            self.break_off()

    @staticmethod
    def correlation(message: AnyRequest | AnyReply) -> object:
        round_id: RoundId = message.round
        return round_id

    def break_off(self) -> None:
        """The connection is gone: no waiting request gets a reply, and each may have been done."""
        waiting, self._waiting = self._waiting, {}
        schedule = self._process.schedule
        for on_reply in waiting.values():
            schedule.call_soon(on_reply, NoReply(sent=True))

    def _arrive(self, request: AnyRequest) -> None:
        """A request arrives at the other node, at whichever process runs there by now."""
        there = self._process.node.cluster[self.node].at_hand
        if there is not None:
            there.schedule.call_soon(self._handle, there, request)

    def _handle(self, there: Process, request: AnyRequest) -> None:
        there.submit(request, lambda reply: self._send_back(there, reply))

    def _send_back(self, there: Process, reply: AnyReply | NoReply) -> None:
        if not isinstance(reply, NoReply) and there.may_send(reply):
            there.node.network.carry((self._wire[1], self._wire[0]), self._return, reply)

    def _return(self, reply: AnyReply) -> None:
        """A reply arrives at the process that asked, or at a later one of its node: a late reply may meet the next process."""
        asker = self._process if self._process.schedule.alive else self._process.node.process
        if asker is not None:
            line = asker.lines[self.node]
            assert isinstance(line, Line)
            asker.schedule.call_soon(line.take, reply)

    def take(self, reply: AnyReply) -> None:
        on_reply = self._waiting.pop(self.correlation(reply), None)
        if on_reply is not None:
            on_reply(reply)
