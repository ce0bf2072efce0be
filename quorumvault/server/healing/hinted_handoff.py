"""Handoff: hints about what peers missed are kept in this node's store, and handed off when the peers are back.

    coordinator ──missed──▶ Ledger (memory) ──every second──▶ store ──peer is up, its disk the same──▶ WriteBack ──Ack──▶ deleted

A hint has keys; the records, and the owner's register, are read from this node's own replica when they are sent, and only those
records that are authentic. What the own replica does not have is left to anti-entropy, as is everything owed to a disk beyond
``healing.hints``.

Rules kept here: hinted handoff.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from quorumvault.protocol.hinted_handoff import Hint, Ledger, Owed
from quorumvault.protocol.messages import Put, RaiseEpoch
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.replica.hints import HintStore, Stored
from quorumvault.server.storage import layout

ResultT = TypeVar("ResultT")

#: Hints that are handed off in one go, some megabytes at most: what would be waited for once a hint, a sync among it, is waited
#: for once for all of them.
_HINTS_AT_ONCE = 16


class Handoff:
    """What each peer is owed, and its delivery. Used on the event loop's thread.

    ``wall_ms`` is milliseconds since 1970: an age has to outlive the process. ``handed_off(node, records)`` is told when a peer
    has all that it was owed.
    """

    def __init__(
        self,
        peers: Collection[str],
        replicas: ReplicaClient,
        storage: Storage,
        sender: RecordSender,
        limit: int,
        wall_ms: Callable[[], int],
        handed_off: Callable[[str, int], None],
    ) -> None:
        self._ledgers: dict[str, Ledger | None] = dict.fromkeys(peers)
        #: Disks whose hints are to be deleted, since no view lists them any more.
        self._gone: set[bytes] = set()
        self._restored = False
        self._replicas = replicas
        self._storage = storage
        self._sender = sender
        self._limit = limit
        self._wall_ms = wall_ms
        self._handed_off = handed_off
        #: Records handed off since the start, by peer.
        self.records = dict.fromkeys(peers, 0)

    def missed(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        """The node, with this disk, did not acknowledge what two others did."""
        ledger = self._ledger(node, disk)
        if isinstance(request, Put):
            ledger.miss(request.owner, request.owner_name, request.epoch, request.digests, self._wall_ms())
        else:
            ledger.miss(request.owner, "", request.epoch, (), self._wall_ms())

    def owed(self, node: str) -> Owed:
        ledger = self._ledgers[node]
        if ledger is None or ledger.since is None:
            return Owed(0, 0.0)
        return Owed(ledger.records, max(0, self._wall_ms() - ledger.since) / 1000)

    def overflowed(self, node: str) -> Ledger | None:
        """The ledger of a node that is owed more than hints are kept for."""
        ledger = self._ledgers[node]
        return ledger if ledger is not None and ledger.overflowed else None

    async def once(self) -> None:
        """Store new hints, and hand off what can be. A peer that does not take what it is owed keeps it from no other one.

        Nothing of it on a disk that is full to the brim: what was handed off would have to be deleted, which is a write too.
        """
        if not await on_storage_thread(self._storage, lambda replica: replica.has_reserve()):
            return
        self._forget_replaced()
        if not self._restored:
            await self._restore()
        while self._gone:
            gone = self._gone.pop()
            await self._in_store(lambda hints: hints.forget_all(gone))  # noqa: B023
        for ledger in [each for each in self._ledgers.values() if each is not None]:
            await self._keep(ledger)
        for node, owed in list(self._ledgers.items()):
            if owed is not None and self._replicas.can_ask(node) and self._replicas.listed(node) == owed.disk:
                with suppress(NoAnswer):
                    await self._deliver(node, owed)

    def _forget_replaced(self) -> None:
        """Whatever was owed to a disk that another one has replaced is owed to nobody."""
        for node, ledger in self._ledgers.items():
            if ledger is not None and self._replicas.listed(node) not in (None, ledger.disk):
                self._gone.add(ledger.disk)
                self._ledgers[node] = None

    def _ledger(self, node: str, disk: bytes) -> Ledger:
        """Whatever was owed to an earlier disk of that node is owed to nobody."""
        ledger = self._ledgers[node]
        if ledger is not None and ledger.disk != disk:
            self._gone.add(ledger.disk)
        if ledger is None or ledger.disk != disk:
            ledger = self._ledgers[node] = Ledger(disk, self._limit)
        return ledger

    async def _restore(self) -> None:
        """Count what an earlier process stored, and delete what is for disks that are gone."""
        nodes = {disk: node for node in self._ledgers if (disk := self._replicas.listed(node)) is not None}
        if len(nodes) < len(self._ledgers):
            raise NoAnswer("this node knows no view")
        stored: Stored | None = Stored(b"", 0, None)
        while stored is not None:
            disk, number, hint = stored
            if hint is not None and disk in nodes:
                self._ledger(nodes[disk], disk).restore(number, hint)
            else:
                await self._in_store(lambda hints: hints.forget(disk, [number]))  # noqa: B023
            stored = await self._in_store(lambda hints: hints.after(disk, number))  # noqa: B023
        self._restored = True

    async def _keep(self, ledger: Ledger) -> None:
        if ledger.overflowed:
            await self._in_store(lambda hints: hints.forget_all(ledger.disk))
        elif taken := ledger.take_unstored():
            await self._in_store(lambda hints: hints.keep(ledger.disk, taken))

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
            self._handed_off(node, delivered)

    async def _in_store(self, work: Callable[[HintStore], ResultT]) -> ResultT:
        return await on_storage_thread(self._storage, lambda replica: work(replica.hints))

    async def _oldest(self, disk: bytes) -> list[Stored]:
        return await self._in_store(lambda hints: hints.oldest(disk, _HINTS_AT_ONCE))

    async def _hand_off(self, node: str, hints: Sequence[Hint], introduced: set[bytes]) -> int:
        """``introduced``: owners whose registers the peer was given already. What raised one since is a hint of its own."""
        places: list[bytes] = []
        for hint in hints:
            if hint.owner not in introduced or not hint.digests:
                await self._sender.send_register(node, hint.owner)
                introduced.add(hint.owner)
            keys = layout.record_keys(hint.owner, [hint.epoch] * len(hint.digests), hint.digests)
            places += [key[1:] for key in keys]
        given = await self._sender.send_records(node, places)
        self.records[node] += given
        return given
