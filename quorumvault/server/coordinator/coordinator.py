"""The coordinator: carries out requests of clients by holding rounds with the replicas.

It knows no HTTP and no disk. The operations themselves are pure (protocol/operations.py); here they meet peers and time.

Rules kept here: unknown is an outcome; not found costs the same work.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias, TypeVar, cast

from quorumvault.config.cluster import Timeouts
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import DIGEST_BYTES, format_tokens, parse_alike, parse_tokens
from quorumvault.errors import Busy, NoQuorum, Outcome
from quorumvault.model import FIRST_EPOCH, QUORUM, Owner, Version, node_number
from quorumvault.protocol import operations, records
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.epochs import Raised
from quorumvault.protocol.messages import AnyRequest, Get, Outgoing, Put, RaiseEpoch, RoundId, WriteBack
from quorumvault.protocol.peer import Peer
from quorumvault.protocol.read import Open
from quorumvault.protocol.read_repair import Repaired
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.rounds import TooMuch, ViewRefused
from quorumvault.protocol.steps import Ask, QuorumLost, SecretMissing, Steps, drive
from quorumvault.protocol.views import View
from quorumvault.protocol.write import Adopt, Committed
from quorumvault.server.coordinator.exchange import Exchange, Target

ResultT = TypeVar("ResultT")

#: Owners whose last seen epoch is kept: a guess that saves a round, nothing that is relied on.
_KNOWN_EPOCHS = 4096
#: Tokens that are no tokens are looked up under an epoch that is never issued, so that they cost what others cost (trap 18).
_NO_EPOCH = 0
#: Records that are opened at one go, and bytes of them: a millisecond's worth.
_OPENED = 512
_OPENED_BYTES = 512 << 10
#: Reads of large values at once. Each keeps the disks and loops of two nodes busy with megabytes, reply after reply: requests for
#: small values should not find dozens of those in front of them.
_LARGE_READS = 2
#: A read is one of large values if so few of them do not fit into one reply: they have two kilobytes each.
_FEW = 512
#: Digests that become tokens, or tokens that become digests, at one go: some milliseconds' worth.
_FORMATTED = 4096


class Missing(Enum):
    """Why a token has no value: the words of the contract."""

    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    COLLISION = "collision"


_MISSING = {None: Missing.NOT_FOUND, Open.COLLISION: Missing.COLLISION}


@dataclass(frozen=True, slots=True)
class Tokenized:
    """``tokens`` in the order of the values; None where two values met in one token (rule 10)."""

    epoch: int
    tokens: list[str | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Retokenized:
    """``tokens`` of one epoch, in the order of those that they stand in for, or why there is none."""

    epoch: int
    tokens: list[str | Missing] = field(repr=False)


#: Is told the bytes of records that were read, part by part, and raises RequestError if there is no room for them.
Take: TypeAlias = Callable[[int], None]


def _any_size(size: int) -> None:
    """For callers that know how little they ask for."""


class Vault(Protocol):
    """What the API needs of a coordinator. All raise NoQuorum; canonical forms are those of crypto/canonical.py."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized: ...

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes | Missing]:
        """Canonical forms in the order of the tokens, which may be any text; a token that is repeated has the same object."""
        ...

    async def retokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> Retokenized:
        """The tokens that their values have in the active epoch; a token of that epoch comes back itself."""
        ...

    async def epoch(self, owner: Owner) -> int: ...

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        """For each value its tokens of epochs 1 to ``last``, issued or not. Asks nobody."""
        ...

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        """The active epoch afterwards. Raises EpochAhead."""
        ...


class Observer(Protocol):
    """Hears what a coordinator did, for metrics and the event log. Called on the event loop's thread; must not raise."""

    def read_repaired(self, node: str, records: int) -> None:
        """Records that this node lacked were written back to it, before they were answered (rule 5)."""
        ...

    def fence_retried(self) -> None:
        """A batch met the fence, and is derived again for a later epoch (rule 8)."""
        ...

    def acknowledged(self, disk: bytes, mark: Mark) -> None:
        """A round counts on this: that disk has been so far."""
        ...

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        """This was committed on the two other replicas, and this peer, whose disk in the view that is, did not acknowledge it."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who coordinates: makes round ids unique for ever, and versions say who wrote first."""

    node: str
    disk: bytes
    boot: bytes


@dataclass(frozen=True, slots=True)
class _Held:
    """A round that was held: its decision, by node why a replica took no part, whether any may have written, and whether it asked
    for a few values that are too large for one reply."""

    decision: object
    trouble: dict[str, str]
    wrote: bool
    found_large: bool = False


class Coordinator:
    """Implements Vault over three peers, the node's own replica among them (``peers`` is by node name).

    ``wall_ms`` is milliseconds since 1970, for versions only.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Mapping[str, Peer],
        view: View | None,
        keyring: Keyring,
        timeouts: Timeouts,
        clock: HybridClock,
        wall_ms: Callable[[], int],
        observer: Observer,
    ) -> None:
        self.view = view
        self._identity = identity
        self._peers = peers
        self._keyring = keyring
        self._timeouts = timeouts
        self._clock = clock
        self._wall_ms = wall_ms
        self._observer = observer
        self._rounds = itertools.count(1)
        self._lane = asyncio.Semaphore(_LARGE_READS)
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
        """Behind the fence if there is anything to write, and else the epoch by quorum (rule 8)."""
        if not canonicals:
            register = await self._run(operations.read_epoch(owner, self._keyring), deadline, writes=True)
            return Tokenized(register.epoch, [])
        distinct = list(dict.fromkeys(canonicals))
        version = Version(self._clock.tick(self._wall_ms()), node_number(self._identity.node))
        believed = self._epochs.get(owner, FIRST_EPOCH)
        steps = operations.tokenize(owner, distinct, self._keyring, records.header(version), believed)
        written = await self._run(steps, deadline, writes=True)
        self._remember(owner, written.epoch)
        tokens: list[str | None] = []
        for start in range(0, len(distinct), _FORMATTED):
            if start:
                await asyncio.sleep(0)  # everybody else's turn
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
        epochs, digests = await _keys_of(distinct)
        steps = operations.read_records(owner, epochs, digests, self._keyring, take)
        found = await self._run(steps, deadline, writes=writes)
        values: list[bytes | Missing] = []
        while len(values) < len(found):
            if values:
                await asyncio.sleep(0)  # everybody else's turn
            part = slice(len(values), _end_of_opening(found, len(values)))
            values += self._open(owner, epochs[part], digests[part], found[part])
        if len(distinct) == len(tokens):
            return values
        by_token = dict(zip(distinct, values, strict=True))
        return [by_token[token] for token in tokens]

    def _open(
        self, owner: Owner, epochs: list[int], digests: list[bytes], found: Sequence[bytes | Open | None]
    ) -> list[bytes | Missing]:
        """The canonical forms in the records that were found, epoch by epoch, and words for the others."""
        if len(set(epochs)) == 1 and set(map(type, found)) == {bytes}:  # in the common case without a look at each
            sealed = [records.sealed_of(record) for record in cast("Sequence[bytes]", found)]
            opened = self._keyring.epoch_keys(owner, epochs[0]).sealer.open_all(sealed, digests)
            return [canonical or Missing.UNAVAILABLE for canonical in opened]
        by_epoch: dict[int, list[int]] = {}
        values: list[bytes | Missing] = [
            Missing.UNAVAILABLE if isinstance(record, bytes) else _MISSING.get(record, Missing.UNAVAILABLE) for record in found
        ]
        for index, record in enumerate(found):
            if isinstance(record, bytes):
                by_epoch.setdefault(epochs[index], []).append(index)
        for epoch, at in by_epoch.items():
            sealed = [records.sealed_of(cast("bytes", found[index])) for index in at]
            opened = self._keyring.epoch_keys(owner, epoch).sealer.open_all(sealed, [digests[index] for index in at])
            for index, canonical in zip(at, opened, strict=True):
                values[index] = canonical or Missing.UNAVAILABLE
        return values

    async def epoch(self, owner: Owner) -> int:
        register = await self._run(operations.read_epoch(owner, self._keyring), self._deadline(), writes=False)
        self._remember(owner, register.epoch)
        return register.epoch

    async def derive(self, owner: Owner, canonicals: Sequence[bytes], last: int) -> list[list[str]]:
        by_epoch: list[list[str]] = []
        for epoch in range(FIRST_EPOCH, last + 1):
            by_epoch.append(format_tokens(epoch, self._keyring.epoch_keys(owner, epoch).digests(canonicals)))
            await asyncio.sleep(0)  # an owner may have had thousands of epochs, and nobody else is to wait for all their keys
        return [list(tokens) for tokens in zip(*by_epoch, strict=True)]

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        active = await self._run(operations.rotate(owner, from_epoch, self._keyring), self._deadline(), writes=True)
        self._remember(owner, active)
        return active

    def learn(self, view: View | None) -> None:
        """A peer's view. Naming a newer view is safe for a coordinator: whether it counts is up to the replicas (rule 4)."""
        if view is not None and (self.view is None or view.id > self.view.id):
            self.view = view

    def _remember(self, owner: Owner, epoch: int) -> None:
        if len(self._epochs) >= _KNOWN_EPOCHS:
            self._epochs.pop(next(iter(self._epochs)))
        self._epochs[owner] = max(epoch, self._epochs.pop(owner, FIRST_EPOCH))

    def _deadline(self) -> float:
        """Of a request that begins now, by the event loop's clock."""
        return asyncio.get_running_loop().time() + self._timeouts.request

    async def _run(self, steps: Steps[ResultT], deadline: float, *, writes: bool) -> ResultT:
        """Drive an operation to its end. NoQuorum says which nodes did not take part, and of a write whether it may stand.

        Raises Busy for a read of large values that waits too long behind others.
        """
        outcome: Outcome = "none"
        troubles: dict[str, str] = {}
        in_lane = False

        async def hold(ask: Ask) -> object:
            nonlocal outcome, in_lane
            held = await self._hold(ask, deadline)
            troubles.update(held.trouble)
            outcome = "unknown" if held.wrote else outcome
            if held.found_large and not in_lane:
                await self._enter_lane()
                in_lane = True
            return held.decision

        try:
            return await drive(steps, hold)
        except (QuorumLost, SecretMissing) as error:
            trouble = "; ".join(f"{node}: {reason}" for node, reason in sorted(troubles.items()))
            detail = f"fewer than {QUORUM} nodes could decide this ({trouble or str(error) or 'it changed too often meanwhile'})"
            raise NoQuorum(detail, outcome=outcome if writes else None) from None
        finally:
            if in_lane:
                self._lane.release()

    async def _enter_lane(self) -> None:
        """Wait for a place among the reads of large values. Raises Busy."""
        try:
            async with asyncio.timeout(self._timeouts.round):
                await self._lane.acquire()
        except TimeoutError:
            raise Busy("this node is reading large values for others; wait, or ask another node") from None

    async def _hold(self, ask: Ask, deadline: float) -> _Held:
        """Hold one round."""
        view = self.view
        if view is None:
            return _Held(None, {self._identity.node: "knows no view, since it has no disk and no peer was reached"}, False)
        if ask.view is not None and ask.view != view.id:
            return _Held(ViewRefused(view), {}, False)
        targets = [target for target in self._targets(view) if ask.disk in (None, target.disk)]
        own = self._identity.node
        down = {t.peer.node: "does not vote yet" if t.peer.node == own else "down" for t in targets if not t.peer.up}
        if len(targets) - len(down) < min(QUORUM, len(targets)):
            return _Held(None, down, False)
        round_id = RoundId(self._identity.disk, self._identity.boot, next(self._rounds))
        loop = asyncio.get_running_loop()
        request = ask.request.sent_in(round_id, view.id)
        exchange = Exchange(loop, ask.round(round_id, view), Outgoing(request), targets, self._observer.acknowledged)
        decision = await exchange.run(
            first=len(targets) if ask.everyone else QUORUM,
            hedge=self._timeouts.hedge,
            deadline=min(deadline, loop.time() + self._timeouts.round),
        )
        if isinstance(decision, ViewRefused):
            self.learn(decision.view)
        self._tell(request, decision, exchange, targets)
        found_large = isinstance(decision, TooMuch) and isinstance(request, Get) and len(request.digests) <= _FEW
        return _Held(decision, exchange.trouble, isinstance(request, Put | WriteBack | RaiseEpoch), found_large)

    def _tell(self, request: AnyRequest, decision: object, exchange: Exchange, targets: Sequence[Target]) -> None:
        """What the observer wants to know of a round."""
        match request, decision:
            case WriteBack(digests=digests), Repaired(refused=refused):
                self._observer.read_repaired(targets[0].peer.node, len(digests) - len(refused))
            case Put(), Adopt():
                self._observer.fence_retried()
            case (Put(), Committed()) | (RaiseEpoch(), Raised()):
                disks = {target.peer.node: target.disk for target in targets}
                exchange.watch_missed(lambda node: self._tell_missed(node, disks[node], request))

    def _tell_missed(self, node: str, disk: bytes, request: AnyRequest) -> None:
        if node != self._identity.node and isinstance(request, Put | RaiseEpoch):
            self._observer.unacknowledged(node, disk, request)

    def _targets(self, view: View) -> list[Target]:
        """The view's replicas: this node's first, then those that are up, taking turns."""
        turn = next(self._rounds) % 2

        def order(node: str) -> tuple[bool, bool, bool]:
            return not self._peers[node].up, node != self._identity.node, (node_number(node) % 2 == turn)

        return [Target(self._peers[node], view.disks[node]) for node in sorted(view.disks, key=order)]


def _end_of_opening(found: Sequence[bytes | Open | None], start: int) -> int:
    """Where the records that are opened at one go end, if they begin here: at least one of them."""
    end = min(start + _OPENED, len(found))
    room = _OPENED_BYTES
    for index in range(start, end):
        record = found[index]
        room -= len(record) if isinstance(record, bytes) else 0
        if room < 0:
            return max(index, start + 1)
    return end


async def _keys_of(tokens: Sequence[str]) -> tuple[list[int], list[bytes]]:
    """Columns of epochs and digests of texts that may be tokens."""
    epochs, digests = _keys_at_once(tokens[:_FORMATTED])
    for start in range(_FORMATTED, len(tokens), _FORMATTED):
        await asyncio.sleep(0)  # everybody else's turn
        more_epochs, more_digests = _keys_at_once(tokens[start : start + _FORMATTED])
        epochs += more_epochs
        digests += more_digests
    return epochs, digests


def _keys_at_once(tokens: Sequence[str]) -> tuple[list[int], list[bytes]]:
    alike = parse_alike(tokens)
    if alike is not None:
        epoch, digests = alike
        return [epoch] * len(digests), digests
    keys = [key or (_NO_EPOCH, _dummy_digest(token)) for key, token in zip(parse_tokens(tokens), tokens, strict=True)]
    return [epoch for epoch, _ in keys], [digest for _, digest in keys]


def _dummy_digest(token: str) -> bytes:
    """A digest to look up in place of what is no token; no crypto, so that its cost is not told apart either."""
    return zlib.crc32(token.encode()).to_bytes(4, "big") * (DIGEST_BYTES // 4)
