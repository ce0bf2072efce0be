"""Safeties of batches, of their parts and of records that do not fit into a reply, undone one at a time."""

from collections.abc import Generator, Sequence
from typing import Any

from quorumvault.protocol import operations, read_repair
from quorumvault.protocol.fence import Register
from quorumvault.protocol.read_repair import Repaired
from quorumvault.protocol.steps import ATTEMPTS, Ask, QuorumLost, Steps
from quorumvault.protocol.write import Adopt, Committed
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import REQUESTS, Mutant, Patch

_real_put = operations._put
_real_read_part = operations._read_part


def _tokenizing(*, afresh: bool = True, place: bool = True, derive: bool = True) -> Patch:
    """operations.tokenize, with one step left out where an argument is False.

    ``afresh``: a part that meets the fence begins the batch again. ``place``: collisions of a part are indexed by their places in
    the batch. ``derive``: tokens of a part are derived again for a later epoch.
    """

    def tokenize(
        owner: Any, canonicals: Sequence[bytes], keyring: Any, header: bytes, epoch: int, own: Any = None
    ) -> Steps[operations.Written]:
        done, batch = 0, (epoch, list[bytes](), set[int]())
        parts = list(operations._parts(canonicals))
        for _ in range(ATTEMPTS):
            epoch, digests, collided = batch
            if done == len(parts):
                return operations.Written(epoch, digests, frozenset(collided))
            keys = keyring.epoch_keys(owner, epoch)
            part = keys.digests(parts[done])
            sealed = keys.sealer.seal(parts[done], part)
            decision = yield from operations._put(owner, Register(epoch, keyring.secret_id), header, part, sealed, own)
            if isinstance(decision, Adopt) and not derive:
                epoch = decision.epoch
                decision = yield from operations._put(owner, Register(epoch, keyring.secret_id), header, part, sealed, own)
            if isinstance(decision, Committed):
                start = len(digests) if place else 0
                batch = epoch, digests + part, collided | {start + index for index in decision.collided}
                done += 1
            elif isinstance(decision, Adopt):
                done, batch = (0, (decision.epoch, [], set())) if afresh else (done, (decision.epoch, digests, collided))
        raise QuorumLost

    return operations, "tokenize", tokenize


def _put_unmapped(*of: Any) -> Generator[Ask, Any, object]:
    """Indexes collisions by their places among the items that were left to write."""
    decision: Any = None
    steps = _real_put(*of)
    try:
        ask = next(steps)
        while True:
            decision = yield ask
            ask = steps.send(decision)
    except StopIteration as end:
        return decision if isinstance(end.value, Committed) else end.value


def _put_but_the_guess(
    owner: Any, register: Register, header: bytes, digests: list[bytes], sealed: list[bytes], own: Any
) -> Steps[object]:
    guessed = set() if own is None else set(own.repeats(owner.id, register.epoch, digests))
    left = [index for index in range(len(digests)) if index not in guessed]
    some = [digests[index] for index in left], [sealed[index] for index in left]
    decision = yield from _real_put(owner, register, header, *some, None)
    if isinstance(decision, Committed):
        return Committed(frozenset(left[index] for index in decision.collided))
    return decision


def _absent_if_large(owner: Any, epochs: list[int], digests: list[bytes], keyring: Any) -> Steps[Any]:
    told = yield from _real_read_part(owner, epochs, digests, keyring)
    return [None] * len(digests) if told is None else told


def _acknowledge_without_room(self: Replica, request: Any) -> Any:
    outcome = self._handle(request, {})
    self._replaced = {}
    return outcome


def _rotate_from_anywhere(owner: Any, from_epoch: int, keyring: Any) -> Steps[int]:
    active = (yield from operations.read_epoch(owner, keyring)).epoch
    if active > from_epoch:
        return active
    if not (yield from operations._advance_epoch(owner, Register(from_epoch + 1, keyring.secret_id))):
        raise QuorumLost
    return from_epoch + 1


def _repair_though_refused(*of: Any) -> Generator[Ask, Any, bool]:
    steps = _real_write_back(*of)
    try:
        ask = next(steps)
        while True:
            decision = yield ask
            ask = steps.send(Repaired(frozenset()) if isinstance(decision, Repaired) else decision)
    except StopIteration as end:
        return bool(end.value)


_real_write_back = read_repair.write_back
_MEET = ("a conflict never overwrites",)

MUTANTS = (
    Mutant("part-keeps-its-epoch", ("the fence",), "when a part meets the fence, earlier parts keep their epoch",
           (_tokenizing(afresh=False),), REQUESTS, seed=98),
    Mutant("adopts-in-name", ("the fence",), "tokens derived for one epoch are written under a later one",
           (_tokenizing(derive=False),), REQUESTS, seed=1),
    Mutant("collided-elsewhere", _MEET, "the collisions of a part count from the beginning of the batch",
           (_tokenizing(place=False),), REQUESTS, seed=8),
    Mutant("collided-among-the-left", _MEET, "collisions among unsettled items are indexed by those items alone",
           ((operations, "_put", _put_unmapped),), REQUESTS, seed=4),
    Mutant("guess-believed", ("settled records",), "items that are guessed to be stored are not written",
           ((operations, "_put", _put_but_the_guess),), REQUESTS, seed=1, scopes=("settled-put-again-read",)),
    Mutant("overflow-is-absent", ("not found needs two",), "records that do not fit into a reply are absent",
           ((operations, "_read_part", _absent_if_large),), REQUESTS, seed=11),
    Mutant("full-acknowledges", ("durable before acknowledged",), "a full disk acknowledges what it does not write",
           ((Replica, "_handle_full", _acknowledge_without_room),), REQUESTS, seed=7),
    Mutant("rotate-from-anywhere", ("the epoch is a max-register",), "a rotate from a future epoch raises the register to it",
           ((operations, "rotate", _rotate_from_anywhere),), REQUESTS, seed=1),
    Mutant("refused-repair-counts", ("read repair before the answer",), "a refused write-back counts",
           ((operations, "write_back", _repair_though_refused),), scopes=("two-values-get-get",)),
)  # fmt: skip
