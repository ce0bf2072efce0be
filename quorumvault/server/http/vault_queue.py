"""The queue in which requests for many values wait for their turn at the vault.

If all such requests ran at once, each would get a small part of the node's time. In an overloaded cluster none would finish
within its deadline, and all their work would be wasted. So only a few run at once: enough to keep all nodes busy, and few enough
to finish in time. The rest wait, and after a while are Busy (429), before any work was done for them.

    up to FEW values   runs at once, so that its client never waits for other clients' thousands
    more               runs once it fits beside the running ones: AT_ONCE values together, or one request alone, however large

Owners take turns (``FairQueue``), so that no owner waits for all of another owner's requests.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from quorumvault.errors import Busy
from quorumvault.model import Owner
from quorumvault.server.coordinator.fair_queue import FairQueue

#: Values that take a node as long as a single one does. All places together (``limits.in_flight``) make less than AT_ONCE.
FEW: Final = 100
#: The largest request that every node takes. With three nodes, each replica has three rounds of writes waiting: while one is on
#: its way to the disk, the next ones are there.
AT_ONCE: Final = 10_000


class VaultQueue:
    """The line of one node. Used on the event loop's thread only."""

    def __init__(self) -> None:
        self._queue = FairQueue(AT_ONCE)

    @property
    def under_way(self) -> int:
        """The values of the requests for many that are worked on."""
        return self._queue.under_way

    @contextlib.asynccontextmanager
    async def turn(self, owner: Owner, items: int, seconds: float) -> AsyncIterator[bool]:
        """Wait until so many values may be worked on, as they are within the block. Yields whether that took a wait.

        Raises Busy if it takes more than ``seconds``.
        """
        if items <= FEW:
            yield False
            return
        try:
            async with asyncio.timeout(seconds):
                waited = await self._queue.enter(owner, items)
        except TimeoutError:
            raise Busy("this node is working on other requests for many values; wait, or ask another one") from None
        try:
            yield waited
        finally:
            self._queue.leave(items)
