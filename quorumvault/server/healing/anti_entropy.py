"""Anti-entropy: every few minutes this node's replica is compared with each peer's, and what differs is mended both ways.

What is compared, and in which order, is protocol/antientropy.py. A comparison is due at the start as soon as the buckets are
counted, then ``healing.anti_entropy`` seconds apart, give or take a quarter so that nodes do not fall into step; with a peer that
was owed more than hints are kept for as soon as it is back; and when an operator asks for it.

Rules kept here: anti-entropy.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Generator
from functools import partial
from typing import TypeVar

from quorumvault.model import Owner
from quorumvault.protocol.anti_entropy import (
    AskOne,
    CannotCompare,
    Compared,
    Differences,
    GiveRegister,
    MergeRecords,
    MergeRegisters,
    Step,
    WriteBackRecords,
    compare,
    verify,
    verify_registers,
)
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import Registers
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout

logger = logging.getLogger("quorumvault.healing")

ResultT = TypeVar("ResultT")

#: Of the seconds between comparisons, by which they vary.
_JITTER = 0.25
#: Comparisons in a row with one peer, while each still finds something: what a third node had comes through this one.
_REPEATS = 3
#: Seconds until the next try after one that came to nothing: a peer may still be counting its buckets after a start.
_AGAIN = 10.0


class AntiEntropy:
    """Used on the event loop's thread. ``done(node, outcome)`` is told what each comparison came to, or why to nothing.

    ``seconds`` are between two comparisons with one peer; after ``settled_after`` seconds a write is on all replicas that are up.
    """

    def __init__(
        self,
        peers: Collection[str],
        replicas: ReplicaClient,
        storage: Storage,
        sender: RecordSender,
        throttle: Throttle,
        handoff: Handoff,
        *,
        seconds: float,
        settled_after: float,
        rng: random.Random,
        done: Callable[[str, Compared | str], None],
    ) -> None:
        self._replicas = replicas
        self._storage = storage
        self._sender = sender
        self._throttle = throttle
        self._handoff = handoff
        self._seconds = seconds
        self._settled_after = settled_after
        self._rng = rng
        self._done = done
        #: When the next comparison with each peer is due, by the event loop's clock.
        self._due = dict.fromkeys(peers, 0.0)
        self._busy = asyncio.Lock()
        self.counted = False

    async def once(self) -> None:
        """Count the buckets if that is still to be done; else compare with the peers with which it is due."""
        if not self.counted:
            await self._count()
        for node, due in self._due.items():
            overflowed = self._handoff.overflowed(node) is not None
            if self._replicas.can_ask(node) and (overflowed or asyncio.get_running_loop().time() >= due):
                await self.compare(node)

    async def repair(self) -> dict[str, Compared | str]:
        """Compare with all peers now, until nothing is left to mend; by peer, what it came to in all, or why it did not."""
        outcomes: dict[str, Compared | str] = {}
        for _ in range(_REPEATS):
            changed = 0
            for node in self._due:
                outcome = await self.compare(node)
                if isinstance(outcome, Compared):
                    changed += outcome.taken + outcome.given + outcome.raised
                before = outcomes.get(node)
                outcomes[node] = outcome if not isinstance(before, Compared) or isinstance(outcome, str) else before + outcome
            if not changed:
                break
        return outcomes

    async def compare(self, node: str) -> Compared | str:
        """What it came to, or why it came to nothing."""
        async with self._busy:
            self._due[node] = asyncio.get_running_loop().time() + self._seconds * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            ledger = self._handoff.overflowed(node)
            settles = 0 if ledger is None else ledger.begin_comparison()
            outcome: Compared | str = "it was interrupted"
            try:
                outcome = await self._drive(node, compare())
            except (NoAnswer, CannotCompare) as error:
                outcome = str(error)
                self._due[node] = asyncio.get_running_loop().time() + min(self._seconds, _AGAIN)
            finally:
                if ledger is not None:
                    ledger.end_comparison(settles, whole=isinstance(outcome, Compared))
            self._done(node, outcome)
            return outcome

    async def verify(self, node: str) -> Differences:
        """All records and registers here and there, by their bytes on disk. Raises NoAnswer, CannotCompare.

        What is being written shows as a difference for as long as that takes; so what differs is looked at again.
        """
        found = await self._look_again(lambda: self._drive(node, verify_registers()))
        first = following = 0
        while first < BUCKETS:

            async def compare_slice() -> Differences:
                nonlocal following
                following, differences = await self._drive(node, verify(first))  # noqa: B023
                return differences

            found += await self._look_again(compare_slice)
            first = following
        return found

    async def _look_again(self, look: Callable[[], Awaitable[Differences]]) -> Differences:
        found = await look()
        for _ in range(_REPEATS):
            if not found:
                break
            await pause(self._settled_after)
            found = await look()
        return found

    async def _count(self) -> None:
        first = 0
        while first < BUCKETS:
            began = self._throttle.begin()
            first = await on_storage_thread(self._storage, lambda replica: replica.inventory.count(first))  # noqa: B023
            await self._throttle.rest(began)
        self.counted = True
        logger.info("all buckets of the store are counted")

    async def _drive(self, node: str, steps: Generator[Step, object, ResultT]) -> ResultT:
        return await drive(steps, partial(self._take, node))

    async def _take(self, node: str, step: Step) -> object:
        match step:
            case AskOne(of_peer=of_peer, request=request):
                return await self._replicas.ask(node if of_peer else self._replicas.node, request.sent_in)
            case WriteBackRecords(places=places):
                return await self._sender.send_records(node, places)
            case MergeRegisters(registers=registers):
                return await on_storage_thread(self._storage, lambda replica: merge_registers(replica, registers))
            case GiveRegister(owner=owner):
                await self._sender.send_register(node, owner)
                return None
            case MergeRecords():
                began = self._throttle.begin()
                taken = await on_storage_thread(self._storage, lambda replica: merge_records(replica, step))
                await self._throttle.rest(began)
                return taken


def merge_registers(replica: Replica, theirs: Registers) -> int:
    """How many this replica raised. Their owners' names come with them."""
    replica.learn(Owner(name) for name in theirs.names if name)
    registers = zip(theirs.epochs, theirs.secrets, strict=True)
    return replica.mend(
        [layout.register_key(owner) for owner in theirs.owners],
        [layout.encode_register(epoch, secret) for epoch, secret in registers],
    )


def merge_records(replica: Replica, theirs: MergeRecords) -> int:
    """How many made a difference here. What is not authentic is not taken in (trap 7)."""
    replica.learn(map(Owner, theirs.names.values()))
    taken = replica.inventory.acceptable(theirs.records)
    return replica.mend([layout.RECORD + place for place in taken], list(taken.values()))
