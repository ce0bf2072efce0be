"""Safeties of requests, undone one at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, cycle, repeat
from typing import Any

from msgspec import structs

from quorumvault.crypto.sealing import Sealer
from quorumvault.errors import NoQuorum
from quorumvault.model import FIRST_EPOCH, QUORUM, Owner
from quorumvault.protocol import messages, operations, read, rounds
from quorumvault.protocol.epochs import EpochRead, EpochRound, RaiseRound
from quorumvault.protocol.fence import Register
from quorumvault.protocol.quorum import Tally
from quorumvault.protocol.read import Open, ReadRound, WriteBackNeeded
from quorumvault.protocol.steps import QuorumLost, Steps
from quorumvault.protocol.write import WriteRound
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.exchange import Exchange
from quorumvault.server.coordinator.vault import Tokenized
from quorumvault.server.replica import replica as replicas
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.undone.mutant import REQUESTS, Mutant, Patch
from tests.simulation import nodes
from tests.simulation.disks import Disk
from tests.simulation.nodes import Line
from tests.simulation.storage import Storage

#: Families of faults that cut a node off.
CUTS = ("kill", "pause", "partition")

_real_sync = Storage._sync
_real_put = Replica._put
_real_on_reply = Exchange._on_reply
_real_hold = Coordinator._hold_round
_real_run = Coordinator._run
_real_get = Replica._get
_real_decision = EpochRound._decision
_real_handle = Replica._handle
_real_record_keys = layout.record_keys
_real_commit = Coordinator._commit
_real_write = Disk.write
#: Ids that no writing round has, each used once.
_OTHER_IDS = count(1 << 60)


def _nothing_back(*_: object) -> Steps[bool]:
    yield from ()
    return True


def _answer_before_sync(self: Storage, answers: Any) -> None:
    self._answer(answers)
    if self._process.schedule.alive:
        _real_sync(self, [])


def _put_repeats_unfenced(self: Replica, put: messages.Put, staged: dict[bytes, bytes]) -> Any:
    held = self._store.get(layout.record_keys(put.owner, [put.epoch] * len(put.digests), put.digests))
    if all(isinstance(record, bytes) and record.endswith(sealed) for record, sealed in zip(held, put.sealed, strict=True)):
        return replicas._Durable(put, {})
    return _real_put(self, put, staged)


def _put_without_raising(self: Replica, put: messages.Put, staged: dict[bytes, bytes]) -> Any:
    before = staged.get(layout.register_key(put.owner))
    outcome = _real_put(self, put, staged)
    if before is None:
        staged.pop(layout.register_key(put.owner), None)
    return outcome


def _vote_again(self: Tally, disk: bytes, *, yes: bool) -> bool:
    self._open.discard(disk)
    self._yes += yes
    return True


def _hear_again(self: Exchange, target: Any, reply: Any) -> None:
    self._waiting[target.peer.node] = target
    _real_on_reply(self, target, reply)


def _take_again(self: Line, reply: messages.AnyReply) -> None:
    on_reply = self._waiting.get(self.correlation(reply))
    if on_reply is not None:
        on_reply(reply)


class _Named(float):
    """A deadline, and the id of the request that has it."""

    request: int


def _run_with_request_id(self: Coordinator, steps: Any, deadline: float, **options: Any) -> Any:
    named = _Named(deadline)
    named.request = next(vars(self).setdefault("_requests", count()))
    return _real_run(self, steps, named, **options)


async def _hold_under_request_id(self: Coordinator, ask: Any, deadline: float) -> Any:
    """The writing rounds of one request share one id, which travels with the deadline."""
    shared = isinstance(deadline, _Named) and isinstance(ask.request, messages.Put)
    self._rounds = repeat(deadline.request) if shared else _OTHER_IDS  # type: ignore[assignment, attr-defined]
    return await _real_hold(self, ask, deadline)


async def _hold_under_few_ids(self: Coordinator, ask: Any, deadline: float) -> Any:
    """The ids of writing rounds repeat after a few, and are the same in each life of a process."""
    self._rounds = vars(self).setdefault("_few", cycle(range(1, 4))) if isinstance(ask.request, messages.Put) else _OTHER_IDS
    return await _real_hold(self, ask, deadline)


def _last_writer_wins(self: Replica, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
    for key, record, stored in zip(keys, incoming, self._store.get(keys), strict=True):
        present = staged.get(key, stored)
        if not isinstance(present, bytes) or record > present:
            staged[key] = record
    return {}


def _corrupt_is_absent(self: Replica, get: messages.Get, staged: dict[bytes, bytes]) -> messages.AnyReply:
    reply = _real_get(self, get, staged)
    return structs.replace(reply, unknown=[]) if isinstance(reply, messages.Holds) else reply


def _silence_is_absent(self: ReadRound, disk: bytes) -> Any:
    if not self._replies:
        return rounds.Round.give_up(self, disk)
    if not self._tally.vote(disk, yes=True):
        return None
    asked = len(self._replies[0].records)
    self._replies.append(messages.Holds(self.id, self.view.id, disk, [None] * asked, []))
    return self._decide()


def _by_one(kind: type[Any]) -> type[Any]:
    return _by(lambda: 1, kind)


def _by(needed: Callable[[], int], kind: type[Any]) -> type[Any]:
    """The round, decided by this many disks."""

    class By(kind):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._tally = Tally(self.view.disks.values(), needed())

    return By


def _first_epoch(self: EpochRound) -> EpochRead | None:
    if not self._replies:
        return None
    first = Register(self._replies[0].epoch, self._replies[0].secret)
    return EpochRead(first if first.epoch else Register(FIRST_EPOCH, ""), settled=True)


def _epoch_kept(self: EpochRound) -> EpochRead | None:
    decision = _real_decision(self)
    return decision and EpochRead(decision.register, settled=True)


def _raise_by_one(self: Replica, request: messages.AnyRequest, staged: dict[bytes, bytes]) -> Any:
    if isinstance(request, messages.RaiseEpoch):
        epoch = max(self._register(request.owner, staged).epoch, FIRST_EPOCH) + 1
        staged[layout.register_key(request.owner)] = layout.encode_register(epoch, request.secret)
        return replicas._Durable(request, {})
    return _real_handle(self, request, staged)


def _rotate_counting_up(owner: Any, from_epoch: int, keyring: Any) -> Steps[int]:
    active = (yield from operations.read_epoch(owner, keyring)).epoch
    if not (yield from operations._advance_epoch(owner, Register(active + 1, keyring.secret_id))):
        raise QuorumLost
    return active + 1


async def _trust_the_hint(self: Coordinator, owner: Any, canonicals: Any, deadline: float) -> Tokenized:
    if not canonicals:
        return Tokenized(self._epochs.get(owner, FIRST_EPOCH), [])
    return await _real_commit(self, owner, canonicals, deadline)


def _judging(judge: Callable[[Any, Any], Any]) -> tuple[Patch, ...]:
    """A judge that makes its verdict from the states and the real verdict."""
    real = read.judge
    return ((read, "judge", lambda states, pending: judge(states, real(states, pending))),)


def _two_settle_a_contest(states: Any, verdict: Any) -> Any:
    values = [state for state in states if isinstance(state, bytes)]
    return min(values) if verdict is Open.UNDECIDED and values else verdict


def _write_back_unread(self: Replica, repair: messages.WriteBack, staged: dict[bytes, bytes]) -> Any:
    keys = _real_record_keys(Owner(repair.owner_name).id, repair.epochs, repair.digests)
    return replicas._Durable(repair, self._store_once(keys, repair.records, staged))


async def _unknown_is_none(self: Coordinator, *arguments: Any, **options: Any) -> Any:
    try:
        return await _real_run(self, *arguments, **options)
    except NoQuorum as lost:
        raise NoQuorum(lost.detail, outcome="none") from None


def _write_error_ignored(self: Disk, puts: Any, deletes: Any = ()) -> None:
    if not self.full:
        _real_write(self, puts, deletes)


def _write_unsynced(self: LevelDBStore, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
    with self._db.write_batch(sync=False) as batch:
        for key in deletes:
            batch.delete(key)
        for key, value in puts.items():
            batch.put(key, value)


def _seal_differently(self: Sealer, canonicals: Any, digests: Any, _numbers: Iterator[int] = count()) -> list[bytes]:  # noqa: B008
    sealed = []
    for canonical, digest in zip(canonicals, digests, strict=True):
        salt = bytes([next(_numbers) % 128])
        sealed.append(self._siv.encrypt(canonical + b"\x80" + salt, [self._context + digest]))
    return sealed


MUTANTS = (
    Mutant("overwrite", ("write-once",), "the later writer by the clock wins",
           ((Replica, "_store_once", _last_writer_wins),), REQUESTS, seed=4, scopes=("two-values-get",)),
    Mutant("key-forgotten", ("write-once",), "the filter of present keys forgets those that are written",
           ((PresentKeys, "add", lambda self, keys: None),), REQUESTS, seed=4),
    Mutant("refusal-counts", ("write-once",), "a refusal counts as an acknowledgement of the record",
           ((WriteRound, "_collided", lambda self: frozenset()),), REQUESTS, seed=4, scopes=("two-values-get",)),
    Mutant("ack-before-sync", ("durable before acknowledged",), "the answer leaves before the sync",
           ((Storage, "_sync", _answer_before_sync),), REQUESTS, seed=11),
    Mutant("no-sync", ("durable before acknowledged",), "writes are not synced",
           ((Disk, "sync", lambda self: None), (LevelDBStore, "write", _write_unsynced)),
           REQUESTS, seed=1, scopes=("put-get-get",), faults=("all",)),
    Mutant("write-error-ignored", ("a distrusted store stops",), "a write error is ignored",
           ((Disk, "write", _write_error_ignored),), REQUESTS, seed=6),
    Mutant("reply-counts-twice", ("a reply counts once",), "a disk that replies twice has two votes",
           ((Tally, "vote", _vote_again), (Exchange, "_on_reply", _hear_again), (Line, "take", _take_again)), REQUESTS, seed=4),
    Mutant("request-id", ("a reply counts once",), "late replies to an earlier attempt count too",
           ((Coordinator, "_run", _run_with_request_id), (Coordinator, "_hold_round", _hold_under_request_id)),
           REQUESTS, seed=18),
    Mutant("ids-come-again", ("a reply counts once",), "round ids are reused",
           ((nodes, "boot_nonce", lambda incarnation: b"boot"), (Coordinator, "_hold_round", _hold_under_few_ids)),
           REQUESTS, seed=72),
    Mutant("one-ack", ("committed",), "one acknowledgement is enough",
           ((operations, "WriteRound", _by_one(WriteRound)),), REQUESTS, seed=1, scopes=("put-get-get",), faults=CUTS),
    Mutant("all-acknowledge", ("committed",), "one write in six needs all three acknowledgements",
           ((operations, "WriteRound", _by(cycle((3, 2, 2, 2, 2, 2)).__next__, WriteRound)),), faults=("kill", "partition")),
    Mutant("no-write-back", ("read repair before the answer",), "nothing is written back",
           ((operations, "write_back", _nothing_back),), REQUESTS, seed=3, scopes=("put-get-get",), faults=CUTS),
    Mutant("seen-once", ("read repair before the answer",), "one disk with the record is enough",
           _judging(lambda states, verdict: verdict.record if isinstance(verdict, WriteBackNeeded) else verdict),
           REQUESTS, seed=3, scopes=("put-get-get",), faults=CUTS),
    Mutant("one-answer", ("read repair before the answer", "not found needs two"), "one answer is enough",
           ((operations, "ReadRound", _by_one(ReadRound)),), REQUESTS, seed=1, scopes=("put-get-get",), faults=CUTS),
    Mutant("one-absent", ("not found needs two",), "one \"absent\" is enough",
           _judging(lambda states, verdict: None if isinstance(verdict, Open | WriteBackNeeded) and None in states else verdict),
           REQUESTS, seed=1, scopes=("put-get-get",), faults=CUTS),
    Mutant("silence-is-absent", ("not found needs two",), "a timeout counts as absent",
           ((ReadRound, "give_up", _silence_is_absent),), REQUESTS, seed=1, scopes=("two-writers-get",), faults=CUTS),
    # On real processes noticing this takes luck: within seconds a compaction meets a rotten table, and then the node stops.
    Mutant("corrupt-is-absent", ("not found needs two", "a distrusted store stops"), "a record that cannot be read is absent",
           ((Replica, "_get", _corrupt_is_absent),), REQUESTS, seed=18, by=("lost",)),
    Mutant("first-epoch", ("the epoch is a max-register",), "the first answer counts",
           ((EpochRound, "_decision", _first_epoch),), REQUESTS, seed=1, scopes=("rotate-epoch-epoch",), faults=CUTS),
    Mutant("epoch-not-written-back", ("the epoch is a max-register",), "an epoch that was read is not written back",
           ((EpochRound, "_decision", _epoch_kept),), REQUESTS, seed=18, scopes=("rotate-epoch-epoch",)),
    Mutant("raise-by-one", ("the epoch is a max-register",), "a repeated raise raises the epoch again",
           ((Replica, "_handle", _raise_by_one),), REQUESTS, seed=1, scopes=("rotate-rotate-epoch",)),
    Mutant("rotate-counts-up", ("the epoch is a max-register",), "a rotate raises the epoch whatever epoch it names",
           ((operations, "rotate", _rotate_counting_up),), REQUESTS, seed=1, scopes=("rotate-rotate-epoch",), faults=CUTS),
    Mutant("one-raise", ("the epoch is a max-register",), "a rotate writes to one disk",
           ((operations, "RaiseRound", _by_one(RaiseRound)),),
           REQUESTS, seed=16, scopes=("rotate-epoch-epoch",), faults=("slow-links",)),
    Mutant("no-fence", ("the fence",), "replicas refuse no earlier epoch",
           ((replicas, "refuses", lambda *_: False),), REQUESTS, seed=1, scopes=("rotate-put-put",), faults=CUTS),
    Mutant("repeats-unfenced", ("the fence",), "repeated puts pass the fence",
           ((Replica, "_put", _put_repeats_unfenced),), REQUESTS, seed=1, scopes=("rotate-put-put",), faults=CUTS),
    Mutant("put-raises-nothing", ("the fence",), "a put raises no smaller register",
           ((Replica, "_put", _put_without_raising),), REQUESTS, seed=18, scopes=("rotate-put-put",)),
    Mutant("hint-trusted", ("the fence",), "an empty batch trusts the epoch cache",
           ((Coordinator, "_commit", _trust_the_hint),), REQUESTS, seed=1, faults=CUTS),
    Mutant("contest-by-two", ("a conflict never overwrites",), "two replicas settle a contested token",
           _judging(_two_settle_a_contest), REQUESTS, seed=4, scopes=("two-values-get-get",)),
    # A disk has a mark only while each of the two others has a value or a mark: no two are absent beside it.
    Mutant("absent-beside-a-mark", ("not found needs two", "a conflict never overwrites"), "two absent disks beside a mark count",
           _judging(lambda states, verdict: None if list(states).count(None) >= QUORUM else verdict),
           tests=("tests/unit/protocol/test_rounds.py::test_a_mark_is_not_absent_though_both_others_lack_the_record",)),
    Mutant("any-secret", ("one secret per epoch",), "a batch under another secret is taken",
           ((replicas, "refuses", lambda mine, theirs: mine.epoch > theirs.epoch),),
           tests=("tests/unit/server/replica/test_fence.py::test_an_epoch_is_of_one_secret",)),
    Mutant("seal-differs", ("a conflict never overwrites",), "no two seals of a value are the same",
           ((Sealer, "seal", _seal_differently),), REQUESTS, seed=1),
    Mutant("rot-spreads", ("read repair before the answer",), "records are written back without authentication",
           ((ReadRound, "_trusted", lambda self, index, state: state), (Replica, "_write_back", _write_back_unread)),
           REQUESTS, seed=107),
    Mutant("unknown-is-failed", ("unknown is an outcome",), "an unknown outcome is reported as none",
           ((Coordinator, "_run", _unknown_is_none),), REQUESTS, seed=1, faults=CUTS),
    Mutant("key-without-owner", ("owner isolation",), "keys have no owner",
           ((layout, "record_keys", lambda owner, *of: _real_record_keys(bytes(len(owner)), *of)),), REQUESTS, seed=1),
    Mutant("one-register", ("owner isolation",), "owners share a register",
           ((layout, "register_key", lambda owner: layout.REGISTER),), REQUESTS, seed=1, faults=CUTS),
)  # fmt: skip
