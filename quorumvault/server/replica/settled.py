"""The settled records of a replica: those that it knows to be on two disks of its view.

A record is written once and never changes. So once two disks of one view hold it, every later quorum read returns it, and a
replica that knows this may return the value alone. A replica learns it in two ways:

- A coordinator says which of its write rounds were committed (messages.Settle). The replica keeps, for each round, the keys under
  which it holds the round's bytes.
- A comparison with one peer, both active in one view, found equal sums for a bucket (protocol/anti_entropy.py): all records that
  were in the bucket when this replica's sum was taken are on both disks.

The knowledge is kept as buckets that are settled as a whole, except for keys written since that are not known to be settled. It
is in memory only: a new process knows nothing, which costs quorum reads but no safety. All of it is dropped when the disk enters
another view, because a disk that joins there may turn two values into a conflict mark, after which neither may be returned.

Rules kept here: settled records.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import RoundId
from quorumvault.server.storage import layout

#: Most keys not yet known to be settled, some 200 bytes each: a second and a half of writes at 40,000 new tokens a second;
#: coordinators send notices ten times a second. A key beyond this number makes its bucket unsettled until a comparison.
UNSETTLED_KEYS: Final = 1 << 16
#: Most keys in the rounds that are remembered until their coordinator's notice comes; the oldest rounds are forgotten first.
ROUND_KEYS: Final = UNSETTLED_KEYS


class SettledRecords:
    """The settled records that one replica knows. Used on the store's thread only.

    Invariants: if a key was written since its bucket became settled, and its record is not known to be settled, the key is in
    ``_unsettled``, or its bucket is not settled. ``_unsettled`` has at most ``unsettled_keys`` keys; the rounds together have at
    most ``round_keys`` keys, which ``_held`` counts.
    """

    def __init__(self, unsettled_keys: int = UNSETTLED_KEYS, round_keys: int = ROUND_KEYS) -> None:
        self._most_keys = unsettled_keys
        self._most_held = round_keys
        #: One byte for each bucket; empty until the first bucket is settled.
        self._whole = bytearray()
        #: For each unsettled key, the disk's sequence at its last write.
        self._unsettled: dict[bytes, int] = {}
        self._rounds: dict[RoundId, Sequence[bytes]] = {}
        self._held = 0
        #: The sequence of the last write of a key for which there was no room.
        self._overflowed = 0

    @property
    def buckets_known(self) -> bool:
        """False until the first comparison. Other threads may read it."""
        return bool(self._whole)

    def select(self, keys: Sequence[bytes]) -> list[int]:
        """The indices of the keys whose records are settled, if the store has them."""
        whole, unsettled = self._whole, self._unsettled
        if not whole:
            return []
        # The index is layout.bucket_of(key), written out: a call for each key would cost as much as everything else here.
        return [index for index, key in enumerate(keys) if whole[key[1] << 8 | key[2]] and key not in unsettled]

    def wrote(self, keys: Iterable[bytes], sequence: int) -> None:
        """Note that the write with this sequence stored records under these keys, which are not known to be settled yet."""
        unsettled = self._unsettled
        unsettled.update(dict.fromkeys(keys, sequence))
        while len(unsettled) > self._most_keys:
            key, _ = unsettled.popitem()
            self._overflowed = sequence
            if self._whole:
                self._whole[layout.bucket_of(key)] = 0

    def stored(self, round_id: RoundId, keys: Sequence[bytes]) -> None:
        """Note that the disk durably has this write round's records under these keys.

        A round of a view that the disk left in the same group is harmless: every comparison since then included these keys.
        """
        if keys:
            self._take(round_id)
            self._rounds[round_id] = keys
            self._held += len(keys)
        while self._held > self._most_held:
            self._take(next(iter(self._rounds)))

    def committed(self, rounds: Iterable[RoundId]) -> None:
        """Note that these rounds were committed, as their coordinator says. Rounds that are not remembered are skipped."""
        for round_id in rounds:
            for key in self._take(round_id):
                self._unsettled.pop(key, None)

    def compared(self, buckets: Iterable[range], sequence: int) -> None:
        """Note that a peer, active in the same view, had the sums that this replica had for these buckets after ``sequence``."""
        if sequence < self._overflowed:
            return  # a key may have been written since that is not in _unsettled
        if not self._whole:
            self._whole = bytearray(BUCKETS)
        equal = bytearray(BUCKETS)
        for some in buckets:
            self._whole[some.start : some.stop] = equal[some.start : some.stop] = b"\1" * len(some)
        known = [key for key, at in self._unsettled.items() if at <= sequence and equal[layout.bucket_of(key)]]
        for key in known:
            del self._unsettled[key]

    def forget(self) -> None:
        """Forget everything: the disk enters another view."""
        self._whole = bytearray()
        self._unsettled.clear()
        self._rounds.clear()
        self._held = 0

    def _take(self, round_id: RoundId) -> Sequence[bytes]:
        keys = self._rounds.pop(round_id, ())
        self._held -= len(keys)
        assert self._held >= 0
        return keys
