"""Hinted handoff: this node keeps hints of the writes that a peer missed, and sends them once the peer is back.

    coordinator ──missed──▶ Ledger (memory) ──every 0.5 s──▶ store ──peer is up, its disk the same──▶ WriteBack ──Ack──▶ deleted

A hint holds keys only. When it is sent, this node reads the records and the owner's register from its own replica, and leaves out
records that are not authentic. Anti-entropy brings the peer any record that this replica lacks, and everything beyond
``healing.hints``. protocol/hinted_handoff.py counts, without IO, what is owed.

Rules kept here: hinted handoff.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from quorumvault.protocol.hinted_handoff import Hint, Ledger, Owed
from quorumvault.protocol.messages import Put, RaiseEpoch
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.replica.hints import HintStore, Stored
from quorumvault.server.storage import layout

ResultT = TypeVar("ResultT")

#: The number of hints sent together, some megabytes at most: they share the peer's sync and the round trip.
_HINTS_AT_ONCE = 16


@dataclass(eq=False)
class Handoff:
    """Keeps the hints for each peer, and delivers their records. Used on the event loop's thread.

    ``wall_ms`` returns milliseconds since 1970, because the age of a hint outlives the process. ``handed_off(node, records)`` is
    called when a peer has received everything that it was owed.
    """

    peers: Collection[str]
    replicas: ReplicaClient
    storage: Storage
    sender: RecordSender
    limit: int
    wall_ms: Callable[[], int]
    handed_off: Callable[[str, int], None]

    def __post_init__(self) -> None:
        self._ledgers: dict[str, Ledger | None] = dict.fromkeys(self.peers)
        #: Disks that no view lists any more; their hints have yet to be deleted.
        self._gone: set[bytes] = set()
        #: The hint of an earlier process that is counted next; None when all are.
        self._uncounted: Stored | None = Stored(b"", 0, None)
        #: Records handed off since the start, by peer.
        self.records = dict.fromkeys(self.peers, 0)

    def missed(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        """Note that the disk of ``node`` did not acknowledge a write that the two others acknowledged."""
        ledger = self._ledger(node, disk)
        if isinstance(request, Put):
            ledger.miss(request.owner, request.owner_name, request.epoch, request.digests, self.wall_ms())
        else:
            ledger.miss(request.owner, "", request.epoch, (), self.wall_ms())

    def owed(self, node: str) -> Owed:
        ledger = self._ledgers[node]
        if ledger is None or ledger.since is None:
            return Owed(0, 0.0)
        return Owed(ledger.records, max(0, self.wall_ms() - ledger.since) / 1000)

    def overflowed(self, node: str) -> Ledger | None:
        """Returns the ledger of a node that missed more than hints are kept for; None for any other node."""
        ledger = self._ledgers[node]
        return ledger if ledger is not None and ledger.overflowed else None

    async def once(self) -> None:
        """Store new hints, and send those that can be sent. A peer that accepts none does not hold up the other.

        Does nothing while the disk has no room at all, because deleting a sent hint is a write.
        """
        if not await on_storage_thread(self.storage, lambda replica: replica.has_reserve()):
            return
        self._forget_replaced()
        if self._uncounted is not None:
            await self._restore()
        for gone in list(self._gone):
            await self._in_store(lambda hints: hints.forget_all(gone))  # noqa: B023
            self._gone.discard(gone)
        for ledger in [each for each in self._ledgers.values() if each is not None]:
            await self._keep(ledger)
        for node, owed in list(self._ledgers.items()):
            if owed is not None and self.replicas.can_ask(node) and self.replicas.listed(node) == owed.disk:
                with suppress(NoAnswer):
                    await self._deliver(node, owed)

    def _forget_replaced(self) -> None:
        """Drop the hints for disks that have been replaced."""
        for node, ledger in self._ledgers.items():
            if ledger is not None and self.replicas.listed(node) not in (None, ledger.disk):
                self._gone.add(ledger.disk)
                self._ledgers[node] = None

    def _ledger(self, node: str, disk: bytes) -> Ledger:
        """Returns the ledger of this disk; drops the ledger of an earlier disk of that node."""
        ledger = self._ledgers[node]
        if ledger is not None and ledger.disk != disk:
            self._gone.add(ledger.disk)
        if ledger is None or ledger.disk != disk:
            ledger = self._ledgers[node] = Ledger(disk, self.limit)
        return ledger

    async def _restore(self) -> None:
        """Count the hints that an earlier process stored, each once, and delete those for disks that are gone."""
        nodes = {disk: node for node in self._ledgers if (disk := self.replicas.listed(node)) is not None}
        if len(nodes) < len(self._ledgers):
            raise NoAnswer("this node knows no view")
        while self._uncounted is not None:
            disk, number, hint = self._uncounted
            if hint is None or disk not in nodes:
                await self._in_store(lambda hints: hints.forget(disk, [number]))  # noqa: B023
            following = await self._in_store(lambda hints: hints.after(disk, number))  # noqa: B023
            if hint is not None and disk in nodes:
                self._ledger(nodes[disk], disk).restore(number, hint)
            self._uncounted = following

    async def _keep(self, ledger: Ledger) -> None:
        if ledger.overflowed:
            await self._in_store(lambda hints: hints.forget_all(ledger.disk))
        elif taken := ledger.take_unstored():
            try:
                await self._in_store(lambda hints: hints.keep(ledger.disk, taken))
            except NoAnswer:
                ledger.overflow()  # these hints are nowhere now: only a comparison finds what the disk missed
                raise

    async def _deliver(self, node: str, ledger: Ledger) -> None:
        delivered = 0
        introduced: set[bytes] = set()
        stored = await self._oldest(ledger.disk)
        while stored and not ledger.overflowed:
            hints, numbers = [each.hint for each in stored if each.hint is not None], [each.number for each in stored]
            delivered += await self._hand_off(node, hints, introduced)
            await self._in_store(lambda kept: kept.forget(ledger.disk, numbers))  # noqa: B023
            stored = await self._oldest(ledger.disk)
            for hint in hints:
                ledger.handed_off(hint, stored[0].hint if stored else None)
        if not stored:
            ledger.none_stored()
        if delivered:
            self.handed_off(node, delivered)

    async def _in_store(self, work: Callable[[HintStore], ResultT]) -> ResultT:
        return await on_storage_thread(self.storage, lambda replica: work(replica.hints))

    async def _oldest(self, disk: bytes) -> list[Stored]:
        return await self._in_store(lambda hints: hints.oldest(disk, _HINTS_AT_ONCE))

    async def _hand_off(self, node: str, hints: Sequence[Hint], introduced: set[bytes]) -> int:
        """Send hints. Returns how many records the peer took. ``introduced`` has the owners whose registers the peer already has:
        a register that rises later has its own hint."""
        places: list[bytes] = []
        for hint in hints:
            if hint.owner not in introduced or not hint.digests:
                await self.sender.send_register(node, hint.owner)
                introduced.add(hint.owner)
            keys = layout.record_keys(hint.owner, [hint.epoch] * len(hint.digests), hint.digests)
            places += [key[1:] for key in keys]
        given = await self.sender.send_records(node, places)
        self.records[node] += given
        return given
