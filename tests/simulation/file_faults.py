"""Faults in the files of a data directory: a plan drawn from the seed, in which each fault has its time, its place and its end.

    torn log        power fails in the middle of a write, and other bytes stand in place of the rest of the write
    rotten table    a bit of a table flips while the node runs
    broken log      a bit of a log flips before its last batch, while the node is down
    lost log        a log is lost while the node is down
    lost store      all files of the store are lost, or the folder too
    away            the data directory is empty for a while, like the mount point of a volume that is not mounted

Power may fail during the starts that follow, and so during a salvage of the store or the making of a new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from chaos.testbed.violation import Violation
from quorumvault.server.storage.data_directory import STORE_DIRECTORY
from quorumvault.server.storage.leveldb_log import _read_batch
from tests.simulation import losses
from tests.simulation.data_directories import flip
from tests.simulation.faults import Fault, Mend

if TYPE_CHECKING:
    from tests.simulation.files import FilesNode

#: The most starts that a power cut ends; and within how many steps of a replacement, and of a salvage, it comes.
_CUTS, _REPLACED, _SALVAGED = 3, 24, 12
#: Seconds into a sync at which power fails.
_MOMENT: Final = 0.0004
_AWAY: Final = 0.8
#: The upper byte of a record's length in a log, and the share of flips that hit it: the rest then looks like a torn write.
_LENGTH, _LENGTHS = 5, 0.6
#: The second from which tables have blocks with only records, so that their store can be salvaged; and how often one rots.
_LARGE, _ROTS = 4.0, 0.4
#: The share of faults that lose a whole disk (losses.py).
_LOST: Final = 0.25


def plan(rng: Random) -> tuple[Fault, ...]:
    faults = []
    for begins in (at + rng.random() for at in losses.TIMES):
        kinds = tuple(losses.LOSSES if rng.random() < _LOST else KINDS)
        kind = "rotten table" if begins > _LARGE and rng.random() < _ROTS else rng.choice(kinds)
        faults.append(Fault(kind, begins, begins + rng.random() * _AWAY, rng.getrandbits(24)))
    return tuple(faults)


def _torn_log(node: FilesNode, rng: Random) -> Mend:
    """Power fails during the next write."""
    disk = node.home
    node.cuts = _draw_cuts(rng)

    def strike() -> None:
        disk.wrote, disk.tears_next = _nothing, True
        node.timeline.at(node.timeline.now + rng.random() * _MOMENT, None, node.crash)

    disk.wrote = strike

    def mend() -> None:
        disk.wrote, disk.tears_next = _nothing, False
        node.start()

    return mend


def _rotten_table(node: FilesNode, rng: Random) -> Mend:
    if node.home.damage_table():
        node.cuts = _draw_cuts(rng, _SALVAGED)
    return _nothing


def _broken_log(node: FilesNode, rng: Random) -> Mend:
    """Flips a bit in the header or in the middle of a batch that others follow."""
    node.crash()
    log = node.home.logs[-1]
    batches = _batches(log.read_bytes())
    if len(batches) > 1:
        first, end = rng.choice(batches[:-1])
        at = _LENGTH if rng.random() < _LENGTHS else rng.randrange(end - first)
        flip(log, first + at, 1 << rng.randrange(8))
        node.home.harm = "a bit of a log"
        node.cuts = _draw_cuts(rng)
    return node.start


def _lost_log(node: FilesNode, rng: Random) -> Mend:
    node.crash()
    for log in node.home.logs:
        log.unlink()
    node.home.harm = "its log"
    node.cuts = _draw_cuts(rng)
    return node.start


def _lost_store(node: FilesNode, rng: Random) -> Mend:
    node.crash()
    store = node.config.data_directory / STORE_DIRECTORY
    shutil.rmtree(store)
    if rng.random() < 0.5:
        store.mkdir()
    node.home.harm = "its store"
    node.cuts = _draw_cuts(rng)
    return node.start


def _away(node: FilesNode, rng: Random) -> Mend:
    node.crash()
    directory = node.config.data_directory
    elsewhere = directory.with_name("elsewhere")
    directory.rename(elsewhere)
    directory.mkdir()
    node.away = True
    node.start()

    def mend() -> None:
        node.crash()
        if any(directory.iterdir()):
            raise Violation("files", f"{node.name} has put something where its disk was to be mounted")
        directory.rmdir()
        elsewhere.rename(directory)
        node.away = False
        node.start()

    return mend


def _draw_cuts(rng: Random, steps: int = _REPLACED) -> list[int]:
    return [rng.randrange(steps) for _ in range(rng.randrange(_CUTS + 1))]


def _batches(log: bytes) -> list[tuple[int, int]]:
    """Where each batch begins and ends."""
    found: list[tuple[int, int]] = []
    at = 0
    while (batch := _read_batch(log, at)).whole:
        found.append((at, batch.end))
        at = batch.end
    return found


def _nothing() -> None:
    """Does nothing."""


KINDS: dict[str, Callable[[FilesNode, Random], Mend]] = {
    "torn log": _torn_log,
    "rotten table": _rotten_table,
    "broken log": _broken_log,
    "lost log": _lost_log,
    "lost store": _lost_store,
    "away": _away,
}
