"""Anti-entropy: every few minutes this node compares its replica with each peer's, and repairs differences in both directions.

protocol/anti_entropy.py decides, without IO, what is compared and in which order. A comparison is due

- after the start, as soon as the buckets are counted;
- then every ``healing.anti_entropy`` seconds, give or take a quarter so that nodes do not fall into step;
- soon after a link of this node went down or came up;
- soon after a round of this node left something over: records on one disk without a hint;
- as soon as a peer is back that missed more writes than hints are kept for;
- when an operator asks for it.

Before a node compares itself with a peer, it fills the gaps of its own disk (fill_gaps.py).

Rules kept here: anti-entropy.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Collection, Generator
from dataclasses import dataclass
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
    SettleBuckets,
    Step,
    WriteBackRecords,
    compare,
    verify,
    verify_registers,
)
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.fill_gaps import Filled
from quorumvault.protocol.messages import Registers
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.fill_gaps import GapFilling
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout

logger = logging.getLogger("quorumvault.healing")

ResultT = TypeVar("ResultT")

#: The share of the interval by which the interval varies.
_JITTER = 0.25
#: Most comparisons in a row with each peer, while they still change something: a third node's records may come through this node.
_REPEATS = 3
#: The rest after comparisons for what was left over: this many times as long as they took, and at most so many seconds, because
#: over a slow link a comparison takes long and costs little.
_RESTS, _LONGEST_REST = 4, 5.0
#: Seconds until the next attempt after a failed one: a peer that has just started may still be counting its buckets.
_AGAIN = 10.0


@dataclass(eq=False)
class AntiEntropy:
    """Used on the event loop's thread. ``done(node, outcome)`` is called after each comparison: counts, or why it failed.

    ``seconds`` is the interval between comparisons with one peer. After ``settled_after`` seconds a write is on all replicas that
    are up.
    """

    peers: Collection[str]
    replicas: ReplicaClient
    storage: Storage
    sender: RecordSender
    throttle: Throttle
    handoff: Handoff
    gaps: GapFilling
    seconds: float
    settled_after: float
    rng: random.Random
    done: Callable[[str, Compared | str], None]

    def __post_init__(self) -> None:
        #: When the next comparison with each peer is due, by the event loop's clock.
        self._due = dict.fromkeys(self.peers, 0.0)
        #: When everything that was left over is compared, unless that was done a short time ago; infinite if nothing was.
        self._left_over_by = math.inf
        #: From then on the last comparisons for what was left over are long enough ago for the next ones.
        self._rested = 0.0
        self._busy = asyncio.Lock()
        self.counted = False

    def link_changed(self) -> None:
        """A link of this node went down or came up: rounds may have been cut off, and gaps can perhaps be filled now. Once all
        such rounds have ended, this replica is compared with every peer that is up.
        """
        self._compare_by(self._all_ended())
        self.gaps.try_soon()

    def left_over(self) -> None:
        """A disk has what another one lacks without a hint: of a round that was not committed, or that its own replica missed.
        The comparisons that this causes rest in between: under overload many rounds end like this.
        """
        self._left_over_by = min(self._left_over_by, self._all_ended())

    def _all_ended(self) -> float:
        """When all rounds that are under way now will have ended."""
        return asyncio.get_running_loop().time() + self.settled_after

    def _compare_by(self, latest: float) -> None:
        for node, due in self._due.items():
            self._due[node] = min(due, latest)

    async def once(self) -> None:
        """Count the buckets if that was not done yet, then compare with each peer for which a comparison is due."""
        if not self.counted:
            await self._count()
        await self._fill_gaps(self.gaps.once)
        loop = asyncio.get_running_loop()
        began = loop.time()
        left_over = began >= max(self._left_over_by, self._rested)
        if left_over:
            self._left_over_by = math.inf
            self._compare_by(began)
        await self._compare_with_due()
        if left_over:
            self._rested = loop.time() + min((loop.time() - began) * _RESTS, _LONGEST_REST)

    async def _compare_with_due(self) -> None:
        """Compare with each peer that is due. What one of them gave is given to those that were compared before it, or not."""
        lack = set[str]()
        for node in self._due:
            if self.replicas.can_ask(node) and self._is_due(node):
                outcome = await self.compare(node)
                lack.discard(node)
                if isinstance(outcome, Compared) and outcome.taken + outcome.raised:
                    lack.update(self._due.keys() - {node})
        for node in lack:
            if self.replicas.can_ask(node):
                await self.compare(node)

    def _is_due(self, node: str) -> bool:
        return self.handoff.overflowed(node) is not None or asyncio.get_running_loop().time() >= self._due[node]

    async def repair(self) -> dict[str, Compared | str]:
        """Compare with all peers now, until nothing is left to repair. Returns the counts, or why it failed, by peer."""
        outcomes: dict[str, Compared | str] = {}
        await self._fill_gaps(self.gaps.now)
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

    async def give_up_gaps(self, *, read_first: bool) -> int:
        """After a repair: see GapFilling.give_up."""
        async with self._busy:
            given_up = await self.gaps.give_up(read_first=read_first)
        self.link_changed()  # so that records that one other disk has there are taken now
        return given_up

    async def compare(self, node: str) -> Compared | str:
        """Compare with one peer now. Returns the counts, or why it failed."""
        async with self._busy:
            now = asyncio.get_running_loop().time()
            if not now < self._due[node] <= now + self.settled_after:  # rounds that a link cut off may still end until then
                self._due[node] = now + self.seconds * self.rng.uniform(1 - _JITTER, 1 + _JITTER)
            ledger = self.handoff.overflowed(node)
            settles = 0 if ledger is None else ledger.begin_comparison()
            outcome: Compared | str = "it was interrupted"
            try:
                outcome = await self._drive(node, compare())
            except (NoAnswer, CannotCompare) as error:
                outcome = str(error)
                self._due[node] = min(self._due[node], asyncio.get_running_loop().time() + _AGAIN)
            finally:
                if ledger is not None:
                    ledger.end_comparison(settles, whole=isinstance(outcome, Compared))
            self.done(node, outcome)
            return outcome

    async def verify(self, node: str) -> Differences:
        """Compare all records and registers with a peer's, by their bytes on disk. Raises NoAnswer, CannotCompare.

        A write in progress shows as a difference while it lasts, so differences are checked again.
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
            await pause(self.settled_after)
            found = await look()
        return found

    async def _fill_gaps(self, fill: Callable[[], Awaitable[Filled | None]]) -> None:
        async with self._busy:
            filled = await fill()
        if filled is not None and filled.closed:
            self.link_changed()  # until now this disk took nothing new there

    async def _count(self) -> None:
        first = 0
        while first < BUCKETS:
            began = self.throttle.begin()
            first = await on_storage_thread(self.storage, lambda replica: replica.inventory.count(first))  # noqa: B023
            await self.throttle.rest(began)
        self.counted = True
        logger.info("all buckets of the store are counted")

    async def _drive(self, node: str, steps: Generator[Step, object, ResultT]) -> ResultT:
        return await drive(steps, partial(self._take, node))

    async def _take(self, node: str, step: Step) -> object:
        match step:
            case AskOne(of_peer=of_peer, request=request):
                return await self.replicas.ask(node if of_peer else self.replicas.node, request.sent_in)
            case WriteBackRecords(places=places):
                return await self.sender.send_records(node, places)
            case MergeRegisters(registers=registers):
                return await on_storage_thread(self.storage, lambda replica: merge_registers(replica, registers))
            case GiveRegister(owner=owner):
                await self.sender.send_register(node, owner)
                return None
            case SettleBuckets():
                await on_storage_thread(self.storage, lambda replica: replica.settle(step.view, step.buckets, step.sequence))
                return None
            case MergeRecords():
                began = self.throttle.begin()
                taken = await on_storage_thread(self.storage, lambda replica: merge_records(replica, step))
                await self.throttle.rest(began)
                return taken


def merge_registers(replica: Replica, theirs: Registers) -> int:
    """Raise registers to the peer's larger ones, and take over owner names. Returns the number of registers raised."""
    replica.learn(Owner(name) for name in theirs.names if name)
    registers = zip(theirs.epochs, theirs.secrets, strict=True)
    keys = [layout.register_key(owner) for owner in theirs.owners]
    return replica.merge(keys, [layout.encode_register(epoch, secret) for epoch, secret in registers]) or 0


def merge_records(replica: Replica, theirs: MergeRecords) -> int:
    """Merge a peer's authentic records into this replica. Returns how many of them changed it."""
    replica.learn(map(Owner, theirs.names.values()))
    taken = replica.inventory.acceptable(theirs.records)
    return replica.merge([layout.RECORD + place for place in taken], list(taken.values())) or 0
