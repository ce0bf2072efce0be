"""Memory that was freed goes back to the system when it is not needed again at once.

Batches come and go with every request, so the allocator keeps what they freed (cli/process.py). After large ones it would keep
a hundred megabytes for good, spread over pages that no other process can use.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

#: Between the end of large requests and the look for free pages: the next large request may be on its way.
_SECONDS: Final = 2.0


class Heap:
    """The heap of this process. Used on the event loop's thread."""

    def __init__(self) -> None:
        # glibc has it, musl does not.
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._timer: asyncio.TimerHandle | None = None

    def trim_soon(self) -> None:
        """Give free pages back in a while, once, however often this is called meanwhile."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._trim is None:
            return
        # It takes some ten milliseconds and the lock of one arena at a time, so not on the loop's thread.
        asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
