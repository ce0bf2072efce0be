"""Settled records that were read lately, in memory: LevelDB takes five microseconds or more for what is at hand here.

Only reads of settled records use it (reader.py). The value of a settled record never changes while its disk is in the view, so
nothing here becomes wrong: writes need not tell the cache, and it is emptied with the knowledge of what is settled (settled.py).
It holds records as they are on disk, with sealed values.

The cache is one piece of memory, in slots of one size. A key's digest gives a pair of slots, one of which may have it. Python's
objects would take twice the memory. Worse, evicted ones leave gaps between those that stay, and later allocations are scattered
over these gaps: new values then cost a tenth more.

    0        41       42
    +--------+--------+--------- - -
    | key    | length | record
    +--------+--------+--------- - -      a slot that was never used begins with a zero, as no key does

A pair with an empty slot takes any record. A full one gives a record up for one of ``_ONE_IN`` others: records that are read
often soon have a slot, and a scan of the whole store does not take them away.
"""

import mmap
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quorumvault.server.storage import layout

_KEY_BYTES: Final = len(layout.RECORD) + layout.PLACE_BYTES
_RECORD_AT: Final = _KEY_BYTES + 1
#: Room for the records of texts of up to 46 bytes. A longer one costs more to open and to send than to look up.
SLOT_BYTES: Final = 128
LONGEST: Final = SLOT_BYTES - _RECORD_AT
_PAIR_BYTES: Final = 2 * SLOT_BYTES
#: A prime, since otherwise batches of one size might always leave the same records out.
_ONE_IN: Final = 7


class RecordCache:
    """Takes ``most_bytes``, as records come. Used on the store's thread only; other threads may read the numbers."""

    def __init__(self, most_bytes: int) -> None:
        #: The number of records that were here, and of those that were not.
        self.hits = self.misses = 0
        self._pairs = most_bytes // _PAIR_BYTES
        #: The number of records offered to full pairs.
        self._contested = 0
        self._memory = _zeros(self._pairs)

    def clear(self) -> None:
        self._memory.close()  # not later: there is perhaps no room for both
        self._memory = _zeros(self._pairs)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The records under these keys, None for each that is not here."""
        found: list[bytes | None] = [None] * len(keys)
        if self._pairs:
            memory, places = self._memory, self._places(keys)
            found = [
                memory[at + _RECORD_AT : at + _RECORD_AT + memory[at + _KEY_BYTES]]
                if memory[at : at + _KEY_BYTES] == key
                else None
                for key, at in zip(keys, places, strict=True)
            ]
            for index in [index for index, record in enumerate(found) if record is None]:
                at = places[index] + SLOT_BYTES
                if memory[at : at + _KEY_BYTES] == keys[index]:
                    found[index] = memory[at + _RECORD_AT : at + _RECORD_AT + memory[at + _KEY_BYTES]]
        misses = found.count(None)
        self.hits += len(keys) - misses
        self.misses += misses
        return found

    def add(self, records: Mapping[bytes, bytes]) -> None:
        """Take records that ``get`` did not find."""
        if not self._pairs:
            return
        memory = self._memory
        for (key, record), at in zip(records.items(), self._places(records), strict=True):
            if len(record) > LONGEST:
                continue
            if memory[at]:
                at += SLOT_BYTES
            if memory[at]:
                self._contested += 1
                if self._contested % _ONE_IN:
                    continue
                at -= SLOT_BYTES * (self._contested % 2)  # the two slots in turn
            memory[at : at + _RECORD_AT + len(record)] = key + bytes((len(record),)) + record

    def _places(self, keys: Iterable[bytes]) -> list[int]:
        """The first slots of the keys' pairs."""
        pairs, number = self._pairs, int.from_bytes
        return [number(key[-4:]) % pairs * _PAIR_BYTES for key in keys]


def _zeros(pairs: int) -> mmap.mmap:
    """Memory that takes none of the machine's until it is written to, and that no child process shares."""
    return mmap.mmap(-1, max(1, pairs) * _PAIR_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
