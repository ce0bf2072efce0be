"""How much room is left where a node's data is. Asked on a thread: a file system may hang, and the event loop never waits for one
(trap 20)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

#: Between two looks.
_SECONDS = 5.0


class FreeSpace:
    """``bytes`` is None until it was asked for the first time, and while it cannot be told."""

    def __init__(self, directory: Path) -> None:
        self.bytes: int | None = None
        self._directory = directory

    async def watch(self) -> None:
        """Look again and again, until cancelled. One look at a time: a disk that hangs takes one thread and no more."""
        while True:
            self.bytes = await asyncio.to_thread(self._look)
            await asyncio.sleep(_SECONDS)

    def _look(self) -> int | None:
        try:
            return shutil.disk_usage(self._directory).free
        except OSError:
            return None
