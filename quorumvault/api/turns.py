"""Turns on the event loop: what is done with a body of 16 MiB is done in steps, and between them everybody else has a turn.

To decode such a body takes some 60 ms, to judge its values as long again, and no call can be cut in two. What must not happen is
that all of it is one step: a node that is silent for two seconds is down to its peers.
"""

from __future__ import annotations

import asyncio

#: Bytes that take a millisecond or two. Less is not worth a turn, which takes ten microseconds.
_LARGE = 256 << 10


async def turn(size: int) -> None:
    """Between two steps of work on this many bytes."""
    if size > _LARGE:
        await asyncio.sleep(0)
