"""Some processes count the buckets of their store, as a node does after its start: from then on they spare look-ups of keys.

All of them would take longer than the rest of a run: the 65,536 buckets of a store are nearly all empty.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.replica.replica import OwnWork

if TYPE_CHECKING:
    from tests.simulation.nodes import Process

#: How many of the processes count, and seconds between two slices at most: writes come before, between and after them.
_COUNTING, _BETWEEN = 0.05, 0.1


def count_sometimes(process: Process, rng: Random) -> None:
    """``rng`` is used for this alone, so that what else a seed plays does not depend on it."""
    if rng.random() >= _COUNTING:
        return
    timeline, storage = process.node.timeline, process.storage

    def count(first: int) -> None:
        if first < BUCKETS:
            work = OwnWork(lambda replica: replica.inventory.count(first))
            timeline.at(timeline.now + rng.random() * _BETWEEN, process.schedule, storage.submit, work, count)

    count(0)
