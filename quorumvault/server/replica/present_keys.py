"""The keys of the records that the store may have: Bloom filters in memory, asked before a write looks keys up (write-once).

A new value's key is not in the store. LevelDB charges a look-up that finds nothing to the tables that it touched, until it
compacts them. So a write does not look up a key that the store certainly lacks. Only ``Replica._store_once`` uses the filters.
Reads, copies and repairs ask the store itself, whose answer also tells what cannot be read.

The filters never call a key absent that the store has. All writes of records go through ``Replica._write``, which adds their keys
to the filters before the store has them. A bucket's filter is trusted only once a scan has added all keys that were there before
(``Inventory.count``). A filter forgets nothing: if a record rots later it becomes unreadable, but its key stays known. A bucket
that cannot be scanned is not trusted. The filters are not stored, so a process knows nothing until it has counted.

A filter cannot grow. When it is full, a new filter takes all further keys. Each is as large as all earlier filters together and
has half the error rate, so that the errors of all filters stay below twice those of the first (Almeida, Baquero, Preguiça and
Hutchison, "Scalable Bloom Filters", Information Processing Letters 101, 2007). The next start builds a single filter again.

Rules kept here: write-once.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from rbloom import Bloom

from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.storage import layout

#: Least number of keys that the first filter has room for: 1.2 MB, so that small stores never need a second filter.
_LEAST: Final = 1 << 20
#: The share of its room that a filter for a store's existing keys leaves for new keys.
_SPARE: Final = 0.25
#: The first filter's false positive rate: one in a hundred absent keys is looked up in vain, at 1.2 bytes a key.
_ERRORS: Final = 0.01
#: Most keys that all filters have room for. This bounds the memory, whatever a store holds or is projected to hold: 40 MB after a
#: start, 60 MB if the store grew to this size in one run. With twice as many keys, one new key in six is looked up in vain.
MOST_KEYS: Final = 1 << 25


class PresentKeys:
    """Used on the store's thread only, except ``select_absent``; other threads may read the numbers.

    Invariants: ``_counted`` is empty or has an entry for each bucket; each key of a record in the store whose bucket is counted
    is in one of the filters.
    """

    def __init__(self) -> None:
        #: The memory that the filters take.
        self.bytes = 0
        #: The number of keys that writes looked up, and of keys that they did not have to look up.
        self.looked_up = self.spared = 0
        #: Both empty until the first bucket is counted; replicas in models are never counted.
        self._filters: list[Bloom] = []
        self._counted = bytearray()
        self._uncounted = BUCKETS
        #: The number of keys that the filters were made for, and how many more the last filter takes.
        self._capacity = self._room = 0

    def learn(self, found: Mapping[int, Sequence[bytes]]) -> None:
        """Take the result of a scan: these buckets have these keys and no others."""
        keys = [key for bucket in found.values() for key in bucket]
        if not self._filters:
            # Digests are uniform, so the number of keys in some buckets gives an estimate for all.
            expected = len(keys) * BUCKETS // max(1, len(found))
            self._counted = bytearray(BUCKETS)
            self._append(min(max(_LEAST, int(expected * (1 + _SPARE))), MOST_KEYS))
        self.add(keys)
        for bucket in found:
            self._counted[bucket] = True
        self._uncounted = self._counted.count(False)

    def forget(self, bucket: int) -> None:
        """Note that the bucket cannot be read: its keys are looked up from now on."""
        if self._filters:
            self._uncounted += self._counted[bucket]
            self._counted[bucket] = False

    def add(self, keys: Sequence[bytes]) -> None:
        """Add keys, before the store has records under them."""
        if not self._filters:
            return
        if self._room <= 0 and self._capacity < MOST_KEYS:
            self._append(min(self._capacity, MOST_KEYS - self._capacity))
        self._room -= len(keys)
        self._filters[-1].update(keys)

    def absent(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Those of a write's keys that the store certainly lacks. They are counted."""
        absent = self.select_absent(keys)
        self.looked_up += len(keys) - len(absent)
        self.spared += len(absent)
        return absent

    def select_absent(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Those of the keys that the store certainly lacks."""
        if self._uncounted:
            counted = self._counted
            keys = [key for key in keys if counted[layout.bucket_of(key)]] if counted else []
        for each in self._filters:
            keys = [key for key in keys if key not in each]
        return keys

    def _append(self, keys: int) -> None:
        assert 0 < keys <= MOST_KEYS - self._capacity
        self._filters.append(Bloom(keys, _ERRORS / 2 ** len(self._filters)))
        self._capacity += keys
        self._room = keys
        self.bytes += self._filters[-1].size_in_bits // 8
