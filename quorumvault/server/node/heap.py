"""Gives freed memory back to the system when it is not needed again at once.

The allocator keeps memory that a request frees, because the next request needs it (cli/process.py). After large requests it would
keep a hundred megabytes for good.
"""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

#: Seconds from the end of a large request until free pages are given back: the next large request may be on its way.
_SECONDS: Final = 2.0


class Heap:
    """The heap of this process. Used on the event loop's thread."""

    def __init__(self) -> None:
        # glibc has it, musl does not.
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._timer: asyncio.TimerHandle | None = None

    def trim_soon(self) -> None:
        """Give free pages back in ``_SECONDS``; once, however often this is called meanwhile."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._trim is None:
            return
        # Not on the loop's thread: this takes some ten milliseconds, and the lock of one arena at a time.
        asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
