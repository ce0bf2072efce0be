"""The free space where a node's data is, and whether it is enough to write.

If LevelDB runs out of disk space it leaves a torn record behind, and the process has to end. So if free space is below a floor
(``limits.free_space_floor``), the replica refuses writes before LevelDB sees them, and still serves reads.

    room --free < floor--> full --free >= floor + a quarter of it--> room

The node's own bookkeeping, some hundred bytes at a time, goes on down to an eighth of the floor: a disk that is full of other
things must still be able to enter a view, and to save marks of other disks.

Without the quarter in between, each table that a compaction writes or removes could flip the state. The storage thread checks
before each group of writes, so at most one group is written between two checks, and the floor has room for that. While there are
no writes, the event loop has another thread check, because a file system may hang and the loop must never wait for one.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quorumvault.server.storage.data_directory import store_bytes

logger = logging.getLogger("quorumvault.disk")

#: Seconds between two checks for the event loop.
_SECONDS = 5.0
#: Share of the floor that must be free above the floor before writes are accepted again.
_HYSTERESIS = 0.25
#: Share of the floor down to which the node's own bookkeeping continues.
_RESERVE = 0.125
#: Multiple of the floor above which dispensable things, such as old event files, are kept: 2 GiB by default.
_PLENTY = 4


def free_bytes(directory: Path) -> int:
    """The number of bytes that an unprivileged process may still write in this directory. Raises OSError."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


@dataclass(eq=False)
class FreeSpace:
    """``bytes`` is the latest free space: None before the first check, and while it is unknown. ``full``: writes are refused.

    ``stored`` is the size of the store's files at the event loop's last check.

    ``on_change(full)`` is called on the event loop's thread; two changes at once may cancel out.
    ``look`` may be called on any thread.
    """

    directory: Path
    floor: int
    on_change: Callable[[bool], None]
    free: Callable[[Path], int] = free_bytes

    def __post_init__(self) -> None:
        self.bytes: int | None = None
        self.full = False
        self.stored = 0
        self._told = False
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """The problem in words, for /health; None while writes are accepted."""
        if not self.full:
            return None
        left = "an unknown number of" if self.bytes is None else f"{self.bytes:,}"
        return (
            f"disk full: {left} bytes are free at {self.directory}, and limits.free_space_floor is {self.floor:,}: "
            f"this node refuses writes and serves reads; make room, and it goes on by itself"
        )

    def has_room(self) -> bool:
        """Check the free space. Returns True if writes may be accepted. Takes some 2 microseconds on a local disk."""
        with self._lock:
            try:
                free = self.free(self.directory)
            except OSError:
                # The free space is unknown. The write itself will show whether there is room.
                self.bytes = None
                return not self.full
            self.bytes = free
            full = free < self.floor * (1 + _HYSTERESIS) if self.full else free < self.floor
            if full != self.full:
                self.full = full
                self._loop.call_soon_threadsafe(self._tell)
            return not full

    def has_reserve(self) -> bool:
        """Check the free space. Returns True if there is room for the node's own bookkeeping."""
        return self.has_room() or self.bytes is None or self.bytes >= self.floor * _RESERVE

    def has_room_for(self, size: int) -> bool:
        """Check the free space. Returns True if ``size`` more bytes would leave the floor free, False if that is unknown."""
        return self.has_room() and self.bytes is not None and self.bytes - size >= self.floor

    def has_plenty(self) -> bool:
        """Check the free space. Returns True if there is room for dispensable files, such as old event files. Raises OSError."""
        return self.free(self.directory) >= self.floor * _PLENTY

    async def watch(self) -> None:
        """Check every few seconds, until cancelled. One check at a time: a disk that hangs blocks only one thread."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(_SECONDS)

    def look(self) -> None:
        """Check free space and the size of the store. Blocks for as long as the disk does."""
        self.has_room()
        with contextlib.suppress(OSError):
            self.stored = store_bytes(self.directory)

    def _tell(self) -> None:
        if self.full == self._told:
            return
        self._told = self.full
        if self.full:
            logger.error(self.problem)
        else:
            logger.warning("there is room at %s again: this node takes writes", self.directory)
        self.on_change(self.full)
