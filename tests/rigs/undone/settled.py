"""Replicas' knowledge of settled records, undone one safety at a time."""

from collections.abc import Generator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from msgspec import structs

from quorumvault.protocol import anti_entropy, operations, records
from quorumvault.protocol.messages import AnyReply, AnyRequest, GetSettled, Put, RoundId, Settled, Sums
from quorumvault.protocol.operations import OwnReplica
from quorumvault.protocol.steps import Ask
from quorumvault.protocol.views import ViewId
from quorumvault.protocol.write import Committed
from quorumvault.server.coordinator import coordinator as coordinators
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.lookup import open_all
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.replica import replica as replicas
from quorumvault.server.replica.copy import merge_piece
from quorumvault.server.replica.replica import Replica
from quorumvault.server.replica.settled import SettledRecords
from quorumvault.server.storage import layout
from tests.rigs.undone.mutant import HEALING_NODES, LOST_DISKS, REQUESTS, Mutant
from tests.simulation import nodes
from tests.simulation.comparing import learn_settled
from tests.simulation.nodes import Process

_real_tell = Coordinator._tell
_real_put = Replica._put
_real_put_part = operations._put
_real_get_settled = Replica._get_settled
_real_differing_sums = anti_entropy._differing_sums
_real_compared = SettledRecords.compared
_real_wrote = SettledRecords.wrote
_real_tell_settled = Coordinator._tell_settled
#: A sequence number after all writes.
_ALWAYS = 1 << 62


def _known_when_stored(self: SettledRecords, round_id: RoundId, keys: Sequence[bytes]) -> None:
    for key in keys:
        self._unsettled.pop(key, None)


def _announced_in_any_case(self: Coordinator, request: AnyRequest, decision: object, *rest: Any) -> None:
    _real_tell(self, request, decision, *rest)
    if isinstance(request, Put) and decision != Committed():
        self.observer.committed(request.round)


def _of_any_boot(self: SettledRecords, rounds: Iterable[RoundId]) -> None:
    told = {round_id.counter for round_id in rounds}
    for mine in [mine for mine in self._rounds if mine.counter in told]:
        for key in self._take(mine):
            self._unsettled.pop(key, None)


def _with_what_was_refused(self: Replica, put: Put, staged: dict[bytes, bytes]) -> Any:
    done = _real_put(self, put, staged)
    if isinstance(done, replicas._Durable):
        return replicas._Durable(put, done.refused, layout.record_keys(put.owner, [put.epoch] * len(put.digests), put.digests))
    return done


def _whatever_the_view(groups: list[int], unknown: anti_entropy.Unknown | None = None) -> Generator[Any, Any, Any]:
    """Treats the peer's sums as sums of this replica's view."""
    steps = _real_differing_sums(groups, unknown)
    theirs = yield next(steps)
    mine = yield steps.send(theirs)
    if isinstance(theirs, Sums) and isinstance(mine, Sums):
        steps = _real_differing_sums(groups, unknown)
        next(steps)
        steps.send(structs.replace(theirs, view=mine.view))
    try:
        step = steps.send(mine)
        while True:
            step = steps.send((yield step))
    except StopIteration as end:
        return end.value


def _settled_in_any_view(self: Replica, view: ViewId, buckets: Iterable[range], sequence: int) -> None:
    self.settled.compared(buckets, sequence)


def _bucket_stays(self: SettledRecords, keys: Iterable[bytes], sequence: int) -> None:
    whole, self._whole = self._whole, bytearray()
    _real_wrote(self, keys, sequence)
    self._whole = whole


def _whenever_written(self: SettledRecords, buckets: Iterable[range], sequence: int) -> None:
    _real_compared(self, buckets, sequence if sequence < self._overflowed else _ALWAYS)


def _never_void(self: SettledRecords, buckets: Iterable[range], sequence: int) -> None:
    self._overflowed = 0
    _real_compared(self, buckets, sequence)


def _without_the_fence(*args: Any) -> Generator[Any, Any, Any]:
    """Asks no replica if nothing is left to write."""
    steps = _real_put_part(*args)
    try:
        ask = next(steps)
        while not isinstance(ask.request, Put) or ask.request.digests:
            ask = steps.send((yield ask))
    except StopIteration as end:
        return end.value
    return Committed()


def _vote_anyhow(self: Replica, get: GetSettled) -> AnyReply:
    told = _real_get_settled(self, get)
    return structs.replace(told, current=True) if isinstance(told, Settled) else told


def _in_any_view(*of: Any, view: ViewId | None = None, **named: Any) -> Ask:
    return Ask(*of, **named)


def _with_its_buckets(process: Process, *rest: Any) -> None:
    """Inherits the settled buckets of the previous process on this disk, but not its unsettled keys."""
    learn_settled(process, *rest)
    before = vars(process.disk).get("settled")
    process.replica.settled._whole = bytearray(before._whole if before else b"")
    vars(process.disk)["settled"] = process.replica.settled


def _tell_marks_too(self: Replica, get: GetSettled) -> AnyReply:
    keys = layout.record_keys(get.owner, get.epochs, get.digests)
    found = self.reader.read([keys[index] for index in self.settled.select(keys)]) or {}
    told = [each if isinstance(each := found.get(key), bytes) else None for key in keys]
    return Settled(get.round, get.view, self.identity.disk, told, current=False)


async def _open_or_take(keyring: Any, owner: Any, epochs: Any, digests: Any, found: Sequence[Any]) -> list[bytes | Missing]:
    """Treats bytes that cannot be opened as the value."""
    opened = await open_all(keyring, owner, epochs, digests, found)
    return [
        b"s" + record.hex().encode() if value is Missing.UNAVAILABLE and isinstance(record, bytes) else value
        for value, record in zip(opened, found, strict=True)
    ]


async def _absent_alone(self: Coordinator, *of: Any) -> list[bytes | Missing]:
    told = await _real_tell_settled(self, *of)
    return [Missing.NOT_FOUND if value is Missing.UNAVAILABLE and self._own_replica() else value for value in told]


def _own_replica_anyhow(self: Coordinator) -> OwnReplica | None:
    own = self.identity.node
    alone = self.view is None or not self.reads_settled or not self.peers[own].up or self._hedging.is_hanging(own)
    return None if alone or self.view is None else OwnReplica(self.view.disks[own], self.repeats)


_ANY_VALUE = SimpleNamespace(authentic=records.authentic, sealed_of=lambda record: mock.ANY)
_RULE = ("settled records",)
_READS = "tests/unit/server/healing/test_settled_reads.py::"

MUTANTS = (
    Mutant("settled-at-one-ack", _RULE, "a record on one disk is settled",
           ((SettledRecords, "stored", _known_when_stored),), REQUESTS, seed=1, scopes=("settled-put-again-read",)),
    Mutant("settled-though-lost", _RULE, "a lost round is announced",
           ((Coordinator, "_tell", _announced_in_any_case),), REQUESTS, seed=4, scopes=("settled-put-again-read",)),
    Mutant("settled-of-any-boot", _RULE, "a notice settles every coordinator's round with its counter",
           ((SettledRecords, "committed", _of_any_boot),), REQUESTS, seed=100, scopes=("settled-two-values-read",)),
    Mutant("settled-though-refused", _RULE, "a refused item counts as stored",
           ((Replica, "_put", _with_what_was_refused),), REQUESTS, seed=96, scopes=("settled-two-values-read",)),
    # Only the exhaustive model notices this: a record has to be on one disk of the view and on one that is no longer listed, and
    # the view has to change between the two halves of a comparison of these two disks.
    Mutant("settled-across-views", _RULE, "a comparison with a disk of another view counts",
           ((anti_entropy, "_differing_sums", _whatever_the_view),), scopes=("settled-join-put-compared",)),
    Mutant("settled-after-the-view", _RULE, "a comparison in the previous view counts",
           ((Replica, "settle", _settled_in_any_view),), LOST_DISKS,
           scopes=("settled-join-contested-compared",)),
    Mutant("settled-while-compared", _RULE, "a comparison settles what is written during it",
           ((SettledRecords, "compared", _whenever_written),), REQUESTS, scopes=("settled-put-read-get",)),
    Mutant("settled-in-every-view", _RULE, "a new view forgets nothing",
           ((SettledRecords, "forget", lambda self: None),), LOST_DISKS, seed=30, scopes=("settled-join-contested",)),
    Mutant("settled-and-marked", _RULE, "an active disk's value becomes a conflict mark",
           ((replicas, "merge_piece", lambda *pieces, marks, spared: merge_piece(*pieces, spared=spared)),), HEALING_NODES,
           scopes=("settled-two-values-read",)),
    Mutant("settled-overflow", _RULE, "a bucket stays settled although one of its keys found no room",
           ((SettledRecords, "wrote", _bucket_stays),), REQUESTS, seed=21, scopes=("settled-no-room",)),
    Mutant("settled-overflow-compared", _RULE, "a comparison settles keys that found no room during it",
           ((SettledRecords, "compared", _never_void),), LOST_DISKS, scopes=("settled-no-room",)),
    Mutant("settled-another-value", _RULE, "a value is not written if another value is settled under its token",
           ((operations, "records", _ANY_VALUE),), REQUESTS, seed=4, scopes=("settled-two-values-put",)),
    Mutant("settled-unfenced", _RULE, "a batch with nothing left to write asks nobody",
           ((operations, "_put", _without_the_fence),), REQUESTS, seed=1, scopes=("settled-put-again-rotate",)),
    Mutant("settled-votes-anyhow", ("the fence",), "a disk that tells what is settled lets every batch pass the fence",
           ((Replica, "_get_settled", _vote_anyhow),), REQUESTS, seed=426,
           scopes=("settled-put-again-rotate", "settled-join-again-rotate", "settled-join-again-rotate-old")),
    Mutant("vote-of-any-view", ("a refused round starts again",), "a vote on the fence counts in a later view too",
           ((operations, "Ask", _in_any_view),), tests=(_READS + "test_a_vote_on_the_fence_counts_in_its_view_alone",)),
    Mutant("settled-at-the-start", _RULE, "settled buckets stay settled after a restart",
           ((nodes, "learn_settled", _with_its_buckets),), REQUESTS, seed=4),
    Mutant("settled-marks", _RULE, "a conflict mark is told alone",
           ((Replica, "_get_settled", _tell_marks_too),), LOST_DISKS, seed=28),
    Mutant("settled-out-of-touch", _RULE, "a node without a quorum tells alone",
           ((Coordinator, "_own_replica", _own_replica_anyhow),),
           tests=(_READS + "test_a_node_out_of_touch_with_a_quorum_tells_nothing_alone",)),
    Mutant("settled-unread", _RULE, "records told alone need not be authentic",
           ((coordinators, "open_all", _open_or_take),), REQUESTS, seed=3),
    Mutant("settled-absent", _RULE, "\"not found\" is told alone",
           ((Coordinator, "_tell_settled", _absent_alone),), REQUESTS, seed=1),
)  # fmt: skip
