"""The queue in which requests for many values wait for their turn at the vault.

If all such requests ran at once, each would get a small part of the node's time. In an overloaded cluster none would finish
within its deadline, and all their work would be wasted. So only a few run at once: enough to keep all nodes busy, and few enough
to finish in time. The rest wait, and after a while are Busy (429), before any work was done for them.

    up to FEW values   runs at once, so that its client never waits for other clients' thousands
    more               runs once it fits beside the running ones: AT_ONCE values together, or one request alone, however large

Owners take turns, so that no owner waits for all of another owner's requests.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from quorumvault.errors import Busy
from quorumvault.model import Owner

#: Values that take a node as long as a single one does. All places together (``limits.in_flight``) make less than AT_ONCE.
FEW: Final = 100
#: The largest request that every node takes. With three nodes, each replica has three rounds of writes waiting: while one is on
#: its way to the disk, the next ones are there.
AT_ONCE: Final = 10_000


class _Waiting(NamedTuple):
    items: int
    turn: asyncio.Future[None]


class VaultQueue:
    """The line of one node. Used on the event loop's thread only. ``under_way`` counts values."""

    def __init__(self) -> None:
        self.under_way = 0
        #: By owner, in the order of their turns. No owner has an empty line.
        self._waiting: dict[Owner, deque[_Waiting]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, owner: Owner, items: int, seconds: float) -> AsyncIterator[bool]:
        """Wait until so many values may be worked on, as they are within the block. Yields whether that took a wait.

        Raises Busy if it takes more than ``seconds``.
        """
        if items <= FEW:
            yield False
            return
        waits = bool(self._waiting) or not self._fits(items)
        if waits:
            await self._wait(owner, items, seconds)
        else:
            self.under_way += items
        try:
            yield waits
        finally:
            self.under_way -= items
            self._serve()

    def _fits(self, items: int) -> bool:
        return not self.under_way or self.under_way + items <= AT_ONCE

    async def _wait(self, owner: Owner, items: int, seconds: float) -> None:
        waiting = _Waiting(items, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(owner, deque()).append(waiting)
        try:
            async with asyncio.timeout(seconds):
                await waiting.turn
        except BaseException as error:
            self._leave(owner, waiting)
            if isinstance(error, TimeoutError):
                raise Busy("this node is working on other requests for many values; wait, or ask another one") from None
            raise

    def _leave(self, owner: Owner, waiting: _Waiting) -> None:
        """End a wait in vain. The turn may have come in the same moment: then it goes to the next one."""
        line = self._waiting.get(owner)
        if waiting.turn.done() and not waiting.turn.cancelled():
            self.under_way -= waiting.items
        elif line is not None and waiting in line:
            line.remove(waiting)
            if not line:
                del self._waiting[owner]
        self._serve()

    def _serve(self) -> None:
        """Give turns, as long as the next one fits: a large request is not kept waiting by smaller ones behind it."""
        while self._waiting:
            owner, line = next(iter(self._waiting.items()))
            if not self._fits(line[0].items):
                return
            items, turn = line.popleft()
            del self._waiting[owner]
            if line:
                self._waiting[owner] = line
            if not turn.done():
                self.under_way += items
                turn.set_result(None)
