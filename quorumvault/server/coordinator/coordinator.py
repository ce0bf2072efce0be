"""The coordinator: carries out clients' requests in rounds with the replicas.

The coordinator knows nothing about HTTP or disks. The operations themselves are pure (protocol/operations.py). This module gives
them peers, a clock, deadlines, and turns of the event loop: no batch is hashed, sealed or parsed for longer than some
milliseconds at a time.

Rules kept here: unknown is an outcome; not found costs the same work.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from quorumvault.config.limits import Timeouts
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_tokens
from quorumvault.errors import Busy, NoQuorum, WriteOutcome
from quorumvault.model import FIRST_EPOCH, QUORUM, Owner, Version, node_number
from quorumvault.protocol import operations, records, revocations
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.epochs import Raised
from quorumvault.protocol.messages import AnyRequest, Get, GetSettled, Outgoing, Put, RaiseEpoch, RevokeKeys, RoundId, WriteBack
from quorumvault.protocol.operations import OwnReplica
from quorumvault.protocol.peer import Peer
from quorumvault.protocol.read import Open
from quorumvault.protocol.read_repair import Repaired
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.rounds import Lost, TooMuch, ViewRefused
from quorumvault.protocol.steps import Ask, QuorumLost, SecretMissing, Steps
from quorumvault.protocol.views import View
from quorumvault.protocol.write import Adopt, Committed
from quorumvault.server.coordinator.exchange import Exchange, Patience, Target, drive
from quorumvault.server.coordinator.fair_queue import FairQueue
from quorumvault.server.coordinator.fence_checks import SHARE, FenceChecks
from quorumvault.server.coordinator.hedging import Hedge, Hedging
from quorumvault.server.coordinator.lookup import keys_of, open_all
from quorumvault.server.coordinator.vault import Missing, Retokenized, Take, Tokenized

ResultT = TypeVar("ResultT")

#: Size of the epoch cache, in owners. An entry is a hint: a wrong one costs one round, never correctness.
_KNOWN_EPOCHS = 4096
#: Most reads of large values at once. Each keeps the disks and event loops of two nodes busy with megabytes, reply after reply.
#: Requests for small values should not wait for dozens of such reads.
_LARGE_READS = 2
#: Seconds in which a replica enters a view that another replica is in: nodes tell each other at once, and a replica enters it
#: with its disk's next group. A replica that takes longer has no room to write the view down, and requests go on without it.
_VIEW_SPREADS = 1.0
#: Seconds between two checks whether the replica has entered the view.
_VIEW_LOOK = 0.02
#: A read that overflows one reply is a read of large values if it asks for at most this many: they average 2 KB or more.
_FEW = 512
#: Most digests formatted as tokens at a time: some milliseconds' work.
_FORMATTED = 4096
#: Requests that may leave something on a disk.
_WRITING = Put | WriteBack | RaiseEpoch | RevokeKeys


def _any_size(size: int) -> None:
    """The ``Take`` for callers that ask for little: accepts any size."""


class Observer(Protocol):
    """Receives what a coordinator did, for metrics, event log and healing. Called on the event loop's thread; must not raise."""

    def read_repaired(self, node: str, records: int) -> None:
        """Read repair before the answer: ``node`` lacked this many records, and has them now."""

    def committed(self, round_id: RoundId) -> None:
        """All records of this write round are committed."""

    def looked_up(self, alone: int, by_quorum: int) -> None:
        """Of a request's tokens this node answered ``alone`` from its own settled records, and read the others by quorum."""

    def fence_retried(self) -> None:
        """The fence refused a batch; the coordinator derives it again for a later epoch."""

    def left_over(self) -> None:
        """A disk has what another one lacks without a hint: of a round that was not committed, or that this node's own replica
        missed."""

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        """A round counts an acknowledgement of this disk, which bears ``mark``."""

    def hedged(self, hedge: Hedge) -> None:
        """A read waited for a slow replica, or a slow replica was tried."""

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        """The two other replicas committed ``request``; ``node``, whose disk in the view is ``disk``, did not acknowledge it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The coordinator's identity. ``disk`` and ``boot`` make its round ids unique for ever; ``node`` is part of versions."""

    node: str
    disk: bytes
    boot: bytes


@dataclass(frozen=True, slots=True)
class _RoundResult:
    """The outcome of a round. ``trouble`` says by node why a replica took no part; ``may_have_written``: the round was a write,
    and was sent; ``found_large``: the round asked for a few values, which did not fit into one reply; ``behind``: the round was
    lost while a replica had yet to enter its view."""

    decision: object
    trouble: dict[str, str]
    may_have_written: bool = False
    found_large: bool = False
    behind: bool = False


@dataclass(eq=False)
class Coordinator:
    """Implements Vault over three peers, by node name; one of them is this node's own replica.

    ``view`` is the newest view that this node knows, or None. ``wall_ms`` returns milliseconds since 1970, for versions only.
    ``reads_settled``: this node's own replica may answer settled records alone; if False, every read takes two replicas.
    ``votes`` says whether a peer that is up votes, as far as this node knows. ``repeats``: see operations.OwnReplica.
    """

    identity: Identity
    peers: Mapping[str, Peer]
    view: View | None
    keyring: Keyring
    timeouts: Timeouts
    clock: HybridClock
    wall_ms: Callable[[], int]
    observer: Observer
    reads_settled: bool = True
    votes: Callable[[str], bool] = lambda node: True
    repeats: Callable[[bytes, int, Sequence[bytes]], Sequence[int]] = lambda owner, epoch, digests: range(len(digests))

    def __post_init__(self) -> None:
        self._rounds = itertools.count(1)
        self._turns = itertools.cycle((1, 2))
        # A hedge gives the third replica as much of the round's time as the two others had.
        self._hedging = Hedging(self.timeouts.hedge, self.timeouts.round / 2, self.observer.hedged)
        self._checks = FenceChecks(self._hedging.least * SHARE)
        self._large_reads = FairQueue(_LARGE_READS)
        self._epochs: dict[Owner, int] = {}

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized:
        return await self._commit(owner, canonicals, self._deadline())

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take = _any_size) -> list[bytes | Missing]:
        return await self._look_up(owner, tokens, take, self._deadline(), writes=False)

    async def retokenize(self, owner: Owner, tokens: Sequence[str], take: Take = _any_size) -> Retokenized:
        deadline = self._deadline()
        values = await self._look_up(owner, tokens, take, deadline, writes=True)
        written = await self._commit(owner, [value for value in values if isinstance(value, bytes)], deadline)
        fresh = iter(written.tokens)
        moved = [(next(fresh) or Missing.COLLISION) if isinstance(value, bytes) else value for value in values]
        return Retokenized(written.epoch, moved)

    async def _commit(self, owner: Owner, canonicals: Sequence[bytes], deadline: float) -> Tokenized:
        """Write, guarded by the fence. If there is nothing to write, read the epoch by quorum instead."""
        if not canonicals:
            register = await self._run(operations.read_epoch(owner, self.keyring), deadline, writes=True)
            return Tokenized(register.epoch, [])
        distinct = list(dict.fromkeys(canonicals))
        version = Version(self.clock.tick(self.wall_ms()), node_number(self.identity.node))
        believed = self._epochs.get(owner, FIRST_EPOCH)
        steps = operations.tokenize(owner, distinct, self.keyring, records.header(version), believed, self._own_replica())
        written = await self._run(steps, deadline, writes=True)
        self._remember(owner, written.epoch)
        tokens: list[str | None] = []
        for start in range(0, len(distinct), _FORMATTED):
            if start:
                await asyncio.sleep(0)  # other requests have their turn
            tokens += format_tokens(written.epoch, written.digests[start : start + _FORMATTED])
        for index in written.collided:
            tokens[index] = None
        if len(distinct) == len(canonicals):
            return Tokenized(written.epoch, tokens)
        by_value = dict(zip(distinct, tokens, strict=True))
        return Tokenized(written.epoch, [by_value[canonical] for canonical in canonicals])

    async def _look_up(
        self, owner: Owner, tokens: Sequence[str], take: Take, deadline: float, *, writes: bool
    ) -> list[bytes | Missing]:
        distinct = list(dict.fromkeys(tokens))
        epochs, digests = await keys_of(distinct)
        values = await self._tell_settled(owner, epochs, digests, take, deadline)
        rest = [index for index, value in enumerate(values) if value is Missing.UNAVAILABLE]
        self.observer.looked_up(len(values) - len(rest), len(rest))
        if len(rest) == len(values):  # even if nothing is asked for: without a quorum that is 503 too
            values = await self._read(owner, epochs, digests, take, deadline, writes=writes)
        elif rest:
            some = ([epochs[index] for index in rest], [digests[index] for index in rest])
            for index, value in zip(rest, await self._read(owner, *some, take, deadline, writes=writes), strict=True):
                values[index] = value
        if len(distinct) == len(tokens):
            return values
        by_token = dict(zip(distinct, values, strict=True))
        return [by_token[token] for token in tokens]

    async def _read(
        self, owner: Owner, epochs: list[int], digests: list[bytes], take: Take, deadline: float, *, writes: bool
    ) -> list[bytes | Missing]:
        """Read these keys by quorum."""
        steps = operations.read_records(owner, epochs, digests, self.keyring, take)
        found = await self._run(steps, deadline, writes=writes, reader=owner)
        return await open_all(self.keyring, owner, epochs, digests, found)

    async def _tell_settled(
        self, owner: Owner, epochs: list[int], digests: list[bytes], take: Take, deadline: float
    ) -> list[bytes | Missing]:
        """The values that this node's own replica may answer alone; UNAVAILABLE for each key that must be read by quorum.

        A node that cannot reach a quorum answers nothing alone: the request gets 503.
        """
        own = self._own_replica()
        if own is None:
            return [Missing.UNAVAILABLE] * len(digests)
        steps = operations.read_settled(owner, epochs, digests, own.disk, take)
        told = await self._run(steps, deadline, writes=False)
        return await open_all(
            self.keyring, owner, epochs, digests, [Open.UNAVAILABLE if record is None else record for record in told]
        )

    def _own_replica(self) -> OwnReplica | None:
        """This node's own replica if it may be asked alone; None if it may not, if it hangs, or if no quorum is in reach."""
        own = self.identity.node
        if self.view is None or not self.reads_settled or not self.peers[own].up or self._hedging.is_hanging(own):
            return None
        in_touch = sum(peer.up and self.votes(node) for node, peer in self.peers.items()) >= QUORUM
        return OwnReplica(self.view.disks[own], self.repeats) if in_touch else None

    async def epoch(self, owner: Owner) -> int:
        register = await self._run(operations.read_epoch(owner, self.keyring), self._deadline(), writes=False)
        self._remember(owner, register.epoch)
        return register.epoch

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        by_epoch: list[list[str]] = []
        for epoch in range(FIRST_EPOCH, last + 1):
            by_epoch.append(format_tokens(epoch, self.keyring.epoch_keys(owner, epoch).digests(canonicals)))
            await asyncio.sleep(0)  # an owner may have thousands of epochs: other requests have their turn
        return [list(tokens) for tokens in zip(*by_epoch, strict=True)]

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        active = await self._run(operations.rotate(owner, from_epoch, self.keyring), self._deadline(), writes=True)
        self._remember(owner, active)
        return active

    async def read_revoked(self, known: frozenset[str]) -> frozenset[str]:
        """See revocations.read_revoked. Raises NoQuorum."""
        return await self._run(revocations.read_revoked(known), self._deadline(), writes=False)

    async def revoke(self, ids: frozenset[str], known: frozenset[str], *, listed: bool) -> frozenset[str]:
        """See revocations.revoke. Raises NoQuorum, Refused."""
        return await self._run(revocations.revoke(ids, known, listed=listed), self._deadline(), writes=True)

    def learn(self, view: View | None) -> None:
        """Adopt a peer's view if it is newer. That is safe: a round is answered only by replicas in the view that it names."""
        if view is not None and (self.view is None or view.id > self.view.id):
            self.view = view

    def _remember(self, owner: Owner, epoch: int) -> None:
        if len(self._epochs) >= _KNOWN_EPOCHS:
            self._epochs.pop(next(iter(self._epochs)))
        self._epochs[owner] = max(epoch, self._epochs.pop(owner, FIRST_EPOCH))

    def _deadline(self) -> float:
        """The time by which a request that begins now must be answered, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self.timeouts.request

    async def _run(self, steps: Steps[ResultT], deadline: float, *, writes: bool, reader: Owner | None = None) -> ResultT:
        """Run an operation to its end, and return its result. ``reader``: the owner whose values it reads.

        Raises NoQuorum, which says which nodes took no part and, for a write, whether it may have happened (rule: unknown is an
        outcome); Busy if a read of large values waits too long for others.
        """
        outcome: WriteOutcome = "none"
        troubles: dict[str, str] = {}
        reads_large = False

        async def hold(ask: Ask) -> object:
            nonlocal outcome, reads_large
            held = await self._hold_round(ask, deadline)
            if held.behind:
                held = await self._hold_until_entered(ask, held, deadline)
            troubles.update(held.trouble)
            outcome = "unknown" if held.may_have_written else outcome
            if held.found_large and reader is not None and not reads_large:
                await self._wait_for_large_reads(reader)
                reads_large = True
            return held.decision

        try:
            return await drive(steps, hold)
        except (QuorumLost, SecretMissing) as error:
            trouble = "; ".join(f"{node}: {reason}" for node, reason in sorted(troubles.items()))
            detail = f"fewer than {QUORUM} nodes could decide this ({trouble or str(error) or 'it changed too often meanwhile'})"
            raise NoQuorum(detail, outcome=outcome if writes else None) from None
        finally:
            if reads_large:
                self._large_reads.leave(1)

    async def _wait_for_large_reads(self, owner: Owner) -> None:
        """Wait for a place among the reads of large values, which owners get in turn. Raises Busy."""
        try:
            async with asyncio.timeout(self.timeouts.round):
                await self._large_reads.enter(owner, 1)
        except TimeoutError:
            raise Busy("this node is reading large values for others; wait, or ask another node") from None

    async def _hold_until_entered(self, ask: Ask, held: _RoundResult, deadline: float) -> _RoundResult:
        """Repeat the round until no replica that it needs is in an older view: nodes tell each other of a new view at once.

        Nothing is carried over from one round to the next, except that something may have been written, and ``ask.voted``.
        """
        loop, written = asyncio.get_running_loop(), held.may_have_written
        patience = min(deadline, loop.time() + _VIEW_SPREADS)
        while held.behind and loop.time() < patience:
            await asyncio.sleep(_VIEW_LOOK)
            held = await self._hold_round(ask, deadline)
            written = written or held.may_have_written
        return replace(held, may_have_written=written)

    async def _hold_round(self, ask: Ask, deadline: float) -> _RoundResult:
        """Run one round in the view that this node knows. If too few replicas are up, none is asked."""
        view = self.view
        if view is None:
            return _RoundResult(None, {self.identity.node: "knows no view, since it has no disk and no peer was reached"})
        if ask.view is not None and ask.view != view.id:
            return _RoundResult(ViewRefused(view), {})
        alone = isinstance(ask.request, GetSettled)
        if alone and self._own_replica() is None:
            return _RoundResult(None, {})
        targets = [target for target in self._targets(view, ask) if ask.asks(target.disk)]
        round_id = RoundId(self.identity.disk, self.identity.boot, next(self._rounds))
        round_ = ask.round(round_id, view)
        own = self.identity.node
        down = {t.peer.node: "does not vote yet" if t.peer.node == own else "down" for t in targets if not t.peer.up}
        if len(targets) - len(down) < round_.needed:
            return _RoundResult(None, down)
        loop, request = asyncio.get_running_loop(), ask.request.sent_in(round_id, view.id)
        first, patience = self._pace(ask, targets, round_.needed, loop.time())
        exchange = Exchange(loop, round_, Outgoing(request), targets, self.observer.acknowledged, patience)
        decision = await exchange.run(first=first, deadline=min(deadline, loop.time() + self.timeouts.round))
        if isinstance(decision, ViewRefused):
            self.learn(decision.view)
        self._tell(request, decision, exchange, targets)
        behind = isinstance(decision, Lost) and exchange.behind and not alone
        found_large = isinstance(decision, TooMuch) and isinstance(request, Get) and len(request.digests) <= _FEW
        return _RoundResult(decision, exchange.trouble, isinstance(request, _WRITING), found_large, behind)

    def _pace(self, ask: Ask, targets: Sequence[Target], needed: int, now: float) -> tuple[int, Patience | None]:
        """How many of the targets a round asks at first, and how long it waits for them."""
        request = ask.request
        if ask.voted is not None:
            return (needed if self._checks.relies_on(targets[0].peer.node) else len(targets)), self._checks.begin(now)
        if ask.everyone and not isinstance(request, GetSettled):
            return len(targets), None
        read = self._hedging.read(len(request.digests) if isinstance(request, Get | GetSettled) else 1, now)
        if ask.everyone:
            return len(targets), read
        third = targets[needed].peer
        return needed + (third.up and self._hedging.tries(third.node, now)), read

    def _tell(self, request: AnyRequest, decision: object, exchange: Exchange, targets: Sequence[Target]) -> None:
        """Tell the observer the outcome of a round."""
        if isinstance(decision, Adopt):
            self.observer.fence_retried()
        match request, decision:
            case WriteBack(digests=digests), Repaired(refused=refused):
                self.observer.read_repaired(targets[0].peer.node, len(digests) - len(refused))
            case (Put(), Committed()) | (RaiseEpoch(), Raised()):
                if isinstance(decision, Committed) and isinstance(request, Put) and request.digests and not decision.collided:
                    self.observer.committed(request.round)
                disks = {target.peer.node: target.disk for target in targets}
                exchange.watch_missed(lambda node: self._tell_missed(node, disks[node], request))
            case ((Put(digests=[_, *_]) | WriteBack() | RaiseEpoch()), (Adopt() | Lost() | ViewRefused())):
                exchange.watch_left_over(self.observer.left_over)

    def _tell_missed(self, node: str, disk: bytes, request: AnyRequest) -> None:
        if node == self.identity.node:
            self.observer.left_over()
        elif isinstance(request, Put | RaiseEpoch):
            self.observer.unacknowledged(node, disk, request)

    def _targets(self, view: View, ask: Ask) -> list[Target]:
        """The view's replicas in the order in which to ask them: this node's own, its peers, slow ones, and last those not up.

        For reads the peers alternate from one round to the next. Checks of the fence, which are small, share a write to one peer.
        """
        alternate = not ask.everyone and ask.voted is None
        own, first = node_number(self.identity.node), next(self._turns) if alternate else 1

        def order(node: str) -> tuple[bool, bool, bool, bool]:
            distance = (node_number(node) - own) % len(view.disks)
            return not self.peers[node].up, self._hedging.is_aside(node), distance != 0, distance != first

        return [Target(self.peers[node], view.disks[node]) for node in sorted(view.disks, key=order)]
