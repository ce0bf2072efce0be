"""Turns on the event loop: what is done with a body of 16 MiB is done in steps, and between them everybody else has a turn.

A node that is silent for two seconds is down to its peers, and a client that asks for one token should not wait for somebody
else's ten thousand records. A single call that cannot be cut, such as decoding 16 MiB, takes some 15 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

#: Bytes that take a millisecond or two. Less is not worth a turn, which takes ten microseconds.
_LARGE: Final = 256 << 10
#: How long one request may keep the loop.
_SECONDS: Final = 0.003


async def turn(size: int) -> None:
    """Between two steps of work on this many bytes."""
    if size > _LARGE:
        await asyncio.sleep(0)


class Turns:
    """The turns of one request. ``clock`` is monotonic, in seconds; the loop's own stands still within a turn."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + _SECONDS

    def over(self) -> bool:
        """Whether this request has had its turn."""
        return self._clock() >= self._until

    async def next(self) -> None:
        """Wait until everybody else had a turn."""
        await asyncio.sleep(0)
        self._until = self._clock() + _SECONDS

    async def through(self, steps: Iterator[None]) -> None:
        """Go through these steps, with turns of others in between."""
        for _ in steps:
            if self.over():
                await self.next()
