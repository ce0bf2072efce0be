"""What replicas know of settled records, undone one safety at a time."""

from collections.abc import Generator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from msgspec import structs

from quorumvault.protocol import anti_entropy, operations, records
from quorumvault.protocol.messages import AnyRequest, Put, RoundId, Sums
from quorumvault.protocol.views import ViewId
from quorumvault.protocol.write import Committed
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.replica import replica as replicas
from quorumvault.server.replica.copy import merge_piece
from quorumvault.server.replica.replica import Replica
from quorumvault.server.replica.settled import SettledRecords
from quorumvault.server.storage import layout
from tests.rigs.undone.mutant import Mutant

_real_tell = Coordinator._tell
_real_put = Replica._put
_real_put_part = operations._put
_real_differing_sums = anti_entropy._differing_sums
_real_compared = SettledRecords.compared
_real_wrote = SettledRecords.wrote
#: Later than all writes.
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


def _whatever_the_view(groups: list[int]) -> Generator[Any, Any, Any]:
    """Takes the peer's sums for those of this replica's view."""
    steps = _real_differing_sums(groups)
    theirs = yield next(steps)
    mine = yield steps.send(theirs)
    if isinstance(theirs, Sums) and isinstance(mine, Sums):
        steps = _real_differing_sums(groups)
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


def _never_void(self: SettledRecords, buckets: Iterable[range], sequence: int) -> None:
    self._overflowed = 0
    _real_compared(self, buckets, sequence)


def _without_the_fence(*args: Any) -> Generator[Any, Any, Any]:
    """Asks nobody if nothing is left to write."""
    steps = _real_put_part(*args)
    try:
        ask = next(steps)
        while not isinstance(ask.request, Put) or ask.request.digests:
            ask = steps.send((yield ask))
    except StopIteration as end:
        return end.value
    return Committed()


_ANY_VALUE = SimpleNamespace(authentic=records.authentic, sealed_of=lambda record: mock.ANY)
_RULE = ("settled records",)

MUTANTS = (
    Mutant("settled-at-one-ack", _RULE, "one disk is enough",
           ((SettledRecords, "stored", _known_when_stored),), scopes=("settled-put-again-read",)),
    Mutant("settled-though-lost", _RULE, "a round that was lost is announced",
           ((Coordinator, "_tell", _announced_in_any_case),), scopes=("settled-put-again-read",)),
    Mutant("settled-of-any-boot", _RULE, "a notice is of every coordinator's round with its counter",
           ((SettledRecords, "committed", _of_any_boot),), scopes=("settled-two-values-read",)),
    Mutant("settled-though-refused", _RULE, "a refused item counts as stored",
           ((Replica, "_put", _with_what_was_refused),), scopes=("settled-two-values-read",)),
    Mutant("settled-across-views", _RULE, "a disk of another view is compared",
           ((anti_entropy, "_differing_sums", _whatever_the_view),), scopes=("settled-join-put-compared",)),
    Mutant("settled-after-the-view", _RULE, "a comparison of the view before counts",
           ((Replica, "settle", _settled_in_any_view),), scopes=("settled-join-contested-compared",)),
    Mutant("settled-while-compared", _RULE, "what is written during a comparison is settled by it",
           ((SettledRecords, "compared", lambda self, buckets, sequence: _real_compared(self, buckets, _ALWAYS)),),
           scopes=("settled-put-read-get",)),
    Mutant("settled-in-every-view", _RULE, "a new view forgets nothing",
           ((SettledRecords, "forget", lambda self: None),), scopes=("settled-join-contested",)),
    Mutant("settled-and-marked", _RULE, "an active disk's value becomes a conflict mark",
           ((replicas, "merge_piece", lambda *pieces, marks: merge_piece(*pieces)),), scopes=("settled-two-values-read",)),
    Mutant("settled-overflow", _RULE, "a bucket stays settled though a key of it found no room",
           ((SettledRecords, "wrote", _bucket_stays),), scopes=("settled-no-room",)),
    Mutant("settled-overflow-compared", _RULE, "a comparison settles keys that found no room since",
           ((SettledRecords, "compared", _never_void),), scopes=("settled-no-room",)),
    Mutant("settled-another-value", _RULE, "a value is not written if another one is settled in its token",
           ((operations, "records", _ANY_VALUE),), scopes=("settled-two-values-put",)),
    Mutant("settled-unfenced", _RULE, "a batch of which nothing is left to write asks nobody",
           ((operations, "_put", _without_the_fence),), scopes=("settled-put-again-rotate",)),
)  # fmt: skip
