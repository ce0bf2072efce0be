"""The operations of a coordinator, as procedures without IO: each yields the rounds that it needs and is sent their decisions.

    tokenize      Put the records that are not settled, guarded by the fence; adopt a later epoch, derive again, retry
    read_settled  GetSettled from one disk: values that the disk may confirm alone
    read_records  Get; write back each record that one replica lacks, before the answer
    read_epoch    the larger of two registers, written back to two replicas
    rotate        read_epoch, then raise to from + 1 if the epoch still is ``from``

Rules kept here: committed; the epoch is a max-register; the fence; one secret per epoch; a refused round starts again;
settled records.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from quorumvault.crypto.keys import Keyring
from quorumvault.errors import EpochAhead, Invalid, TooLarge
from quorumvault.model import MAX_EPOCH, Owner
from quorumvault.protocol import records
from quorumvault.protocol.epochs import EpochRead, EpochRound, Raised, RaiseRound
from quorumvault.protocol.fence import Register
from quorumvault.protocol.messages import UNSENT, Get, GetSettled, Put, RaiseEpoch, ReadEpoch
from quorumvault.protocol.read import Open, ReadResult, ReadRound, SettledRead, SettledRound
from quorumvault.protocol.read_repair import write_back
from quorumvault.protocol.rounds import TooMuch, ViewRefused
from quorumvault.protocol.steps import ATTEMPTS, Ask, QuorumLost, SecretMissing, Steps
from quorumvault.protocol.views import NO_VIEW
from quorumvault.protocol.write import Adopt, Committed, WriteRound

#: Most items, and most bytes, that one round writes or reads. A node processes such a part without a pause, from hashing the
#: values to encrypting the frame, in some 30 ms. Between parts it serves other requests and the pings of its peers.
PART_ITEMS = 4_096
PART_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """Digests in the order of the values; ``collided`` has the indices whose token belongs to another value."""

    epoch: int
    digests: list[bytes] = field(repr=False)
    collided: frozenset[int]


@dataclass(frozen=True, slots=True)
class OwnReplica:
    """The coordinator's own replica as a source of settled records: its ``disk``.

    ``repeats(owner id, epoch, digests)`` returns the indices of the digests that this replica probably has, so that an operation
    asks for no others.
    """

    disk: bytes
    repeats: Callable[[bytes, int, Sequence[bytes]], Sequence[int]]


def tokenize(
    owner: Owner, canonicals: Sequence[bytes], keyring: Keyring, header: bytes, epoch: int, own: OwnReplica | None = None
) -> Steps[Written]:
    """Commit a batch of canonical forms under one epoch: ``epoch``, or the later one that the fence makes it adopt.

    A large batch is committed part by part, and starts again from the beginning if a part meets the fence. ``header`` is the
    header of the new records. Records that ``own`` knows to be settled are not written again; without ``own`` all records are
    written. Raises QuorumLost, SecretMissing.
    """
    for _ in range(ATTEMPTS):
        digests: list[bytes] = []
        collided: set[int] = set()
        for part in _parts(canonicals):
            keys = keyring.epoch_keys(owner, epoch)
            part_digests = keys.digests(part)
            sealed = keys.sealer.seal(part, part_digests)
            decision = yield from _put(owner, Register(epoch, keyring.secret_id), header, part_digests, sealed, own)
            if not isinstance(decision, Committed):
                break
            collided.update(len(digests) + index for index in decision.collided)
            digests += part_digests
        match decision:
            case Committed():
                return Written(epoch, digests, frozenset(collided))
            case Adopt(epoch=later, secret=secret):
                _require_secret(Register(later, secret), keyring)
                epoch = later
            case ViewRefused():
                continue
            case _:
                break
    raise QuorumLost


def _put(
    owner: Owner, register: Register, header: bytes, digests: list[bytes], sealed: list[bytes], own: OwnReplica | None
) -> Steps[object]:
    """Write the unsettled records of a part, in one round. Returns the round's decision, with indices into the whole part.

    The round takes place even if nothing is left to write: two replicas must check the fence for each batch. One of them is then
    this node's own, which has voted when it told that everything is settled.
    """
    left: Sequence[int] = range(len(digests))
    vote: SettledRead | None = None
    if own is not None and (asked := own.repeats(owner.id, register.epoch, digests)):
        keys = [register.epoch] * len(asked), [digests[index] for index in asked]
        told = yield from _ask_settled(owner, *keys, own.disk, register)
        pairs = zip(asked, told.records, strict=True)
        known = {index for index, record in pairs if record is not None and records.sealed_of(record) == sealed[index]}
        left = [index for index in left if index not in known]
        digests, sealed = [digests[index] for index in left], [sealed[index] for index in left]
        vote = told if told.current and not left else None
    request = Put(*UNSENT, owner.id, register.epoch, register.secret, header, digests, sealed, owner.name)
    if vote is None:
        decision = yield Ask(request, WriteRound)
    else:
        decision = yield Ask(request, partial(WriteRound, voted=vote.disk), everyone=False, voted=vote.disk, view=vote.view)
    if isinstance(decision, Committed) and decision.collided:
        return Committed(frozenset(left[index] for index in decision.collided))
    return decision


def _parts(canonicals: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split the batch, in order, into parts of the largest size allowed. Yields one empty part for an empty batch."""
    if len(canonicals) <= PART_ITEMS and sum(map(len, canonicals)) <= PART_BYTES:
        yield canonicals
        return
    start, size = 0, 0
    for index, canonical in enumerate(canonicals):
        size += len(canonical)
        if index > start and (size > PART_BYTES or index - start >= PART_ITEMS):
            yield canonicals[start:index]
            start, size = index, len(canonical)
    yield canonicals[start:]


def read_settled(
    owner: Owner, epochs: list[int], digests: list[bytes], disk: bytes, take: Callable[[int], None] = lambda size: None
) -> Steps[list[bytes | None]]:
    """The disk's settled records for parallel columns of epochs and digests; None for each key that needs a quorum read.

    Large batches are read part by part; a part that does not fit into one reply is not settled. ``take``: see read_records.
    """
    told: list[bytes | None] = []
    for start in range(0, len(digests), PART_ITEMS):
        part = slice(start, start + PART_ITEMS)
        part_told = (yield from _ask_settled(owner, epochs[part], digests[part], disk)).records
        take(sum([len(record) for record in part_told if record is not None]))
        told += part_told
    return told


def _ask_settled(
    owner: Owner, epochs: list[int], digests: list[bytes], disk: bytes, batch: Register | None = None
) -> Steps[SettledRead]:
    """Ask the disk for its settled records, and for its vote on the fence of a batch. If it is silent, nothing is settled."""
    fence = (0, "") if batch is None else (batch.epoch, batch.secret)
    request = GetSettled(*UNSENT, owner.id, epochs, digests, *fence)
    decision = yield Ask(request, partial(SettledRound, count=len(digests), disk=disk), disk=disk)
    return decision if isinstance(decision, SettledRead) else SettledRead(disk, NO_VIEW, [None] * len(digests), current=False)


def read_records(
    owner: Owner, epochs: list[int], digests: list[bytes], keyring: Keyring, take: Callable[[int], None]
) -> Steps[list[bytes | Open | None]]:
    """Read the records for parallel columns of epochs and digests.

    Returns for each key a record that two replicas hold, None if two lack it, or why there is no answer. Large batches are read
    part by part; a part that does not fit into one reply is divided further. ``take`` is called with the size of each part's
    records in bytes, and raises if the caller has no room for them. Raises TooLarge if a single record fits into no reply, and
    QuorumLost.
    """
    found: list[bytes | Open | None] = []
    size = PART_ITEMS
    while True:
        part = slice(len(found), len(found) + size)
        read = yield from _read_part(owner, epochs[part], digests[part], keyring)
        if read is None and size > 1:
            size = max(1, min(size, len(digests) - len(found)) // 2)
            continue
        if read is None:
            raise TooLarge("the value of a token is larger than what a node reads at once (limits.reply_bytes)")
        take(sum([len(record) for record in read if isinstance(record, bytes)]))
        found += read
        if len(found) == len(digests):
            return found


def _read_part(
    owner: Owner, epochs: list[int], digests: list[bytes], keyring: Keyring
) -> Steps[list[bytes | Open | None] | None]:
    """Read one part. Returns None if its records do not fit into one reply."""

    def authentic(index: int, record: bytes) -> bool:
        return records.authentic(record, digests[index], keyring.epoch_keys(owner, epochs[index]).sealer)

    unrepaired: set[bytes] = set()
    for attempt in range(ATTEMPTS):
        decision = yield Ask(
            Get(*UNSENT, owner.id, epochs, digests),
            partial(ReadRound, count=len(digests), authentic=authentic, without=unrepaired),
            everyone=attempt > 0,
        )
        if isinstance(decision, ViewRefused):
            continue
        if isinstance(decision, TooMuch):
            return None
        if not isinstance(decision, ReadResult):
            break
        if (yield from write_back(owner, epochs, digests, decision, unrepaired)):
            return decision.records
    raise QuorumLost


def read_epoch(owner: Owner, keyring: Keyring) -> Steps[Register]:
    """The owner's active epoch, at least that of every rotate answered before the call. Raises QuorumLost, SecretMissing."""
    for _ in range(ATTEMPTS):
        decision = yield Ask(ReadEpoch(*UNSENT, owner.id), EpochRound, everyone=False)
        if isinstance(decision, ViewRefused):
            continue
        if not isinstance(decision, EpochRead):
            break
        if decision.settled or (yield from _advance_epoch(owner, decision.register)):
            _require_secret(decision.register, keyring)
            return decision.register
    raise QuorumLost


def rotate(owner: Owner, from_epoch: int, keyring: Keyring) -> Steps[int]:
    """Raise the owner's register to ``from_epoch + 1`` if it is ``from_epoch``. Idempotent. Returns the active epoch afterwards.

    Raises EpochAhead if the active epoch is smaller than ``from_epoch``, Invalid if it is the last epoch, QuorumLost,
    SecretMissing.
    """
    active = (yield from read_epoch(owner, keyring)).epoch
    if active > from_epoch:
        return active
    if active < from_epoch:
        raise EpochAhead(active_epoch=active)
    if active == MAX_EPOCH:
        raise Invalid(f"epoch {MAX_EPOCH} is the last one")
    for _ in range(ATTEMPTS):
        if (yield from _advance_epoch(owner, Register(active + 1, keyring.secret_id))):
            return active + 1
    raise QuorumLost


def _advance_epoch(owner: Owner, register: Register) -> Steps[bool]:
    """Raise two replicas' registers to at least this one. Returns False if a newer view came in between. Raises QuorumLost."""
    decision = yield Ask(RaiseEpoch(*UNSENT, owner.id, register.epoch, register.secret), RaiseRound)
    if isinstance(decision, Raised):
        return True
    if isinstance(decision, ViewRefused):
        return False
    raise QuorumLost


def _require_secret(register: Register, keyring: Keyring) -> None:
    if register.secret not in ("", keyring.secret_id):
        raise SecretMissing(register)
