"""Guesses which values of a batch are repeats before the batch is written: only these are worth asking for settled records.

The guess is made on the event loop's thread while the storage thread goes on. A wrong guess costs only a look-up, or an
unnecessary write.
"""

from collections.abc import Sequence
from typing import Final

from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout

#: The number of a batch's keys to check first. If fewer than one in eight may be in the store, the batch counts as new: the
#: filter errs in one of a hundred, and asking costs the batch one more turn of the storage thread.
_SAMPLE: Final = 32
_ONE_IN: Final = 8


def likely_repeats(replica: Replica | None, owner: bytes, epoch: int, digests: Sequence[bytes]) -> Sequence[int]:
    """The indices of those digests, of one owner and epoch, whose records the replica may hold and know to be settled."""
    if replica is None or not replica.settled.buckets_known:
        return ()
    keys = layout.record_keys(owner, [epoch] * len(digests), digests)
    sample = keys[:: len(keys) // _SAMPLE + 1]
    if (len(sample) - len(replica.present.select_absent(sample))) * _ONE_IN < len(sample):
        return ()
    absent = frozenset(replica.present.select_absent(keys))
    return [index for index, key in enumerate(keys) if key not in absent]
