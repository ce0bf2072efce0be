"""A fair queue: a bounded amount of work runs at once, the rest waits, and the owners that wait take turns (round robin).

Between two pieces of one owner's work, each other owner that waits has one piece done, however many it has asked for. The pieces
of one owner are done in the order in which they came.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from quorumvault.model import Owner


class _Waiting(NamedTuple):
    size: int
    turn: asyncio.Future[None]


class FairQueue:
    """Used on the event loop's thread only. Each piece of work has a size.

    Pieces of at most ``most`` together are ``under_way`` at once, or a single larger one alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.under_way = 0
        #: By owner, in the order of their turns. No owner has an empty line.
        self._waiting: dict[Owner, deque[_Waiting]] = {}

    async def enter(self, owner: Owner, size: int) -> bool:
        """Wait until a piece of this size may begin; ``leave`` ends it. Returns whether that took a wait.

        A caller that is cancelled while it waits, by asyncio.timeout for one, has no place and must not call ``leave``.
        """
        if not self._waiting and self._fits(size):
            self.under_way += size
            return False
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(owner, deque()).append(waiting)
        try:
            await waiting.turn
        except BaseException:
            self._give_up(owner, waiting)
            raise
        return True

    def leave(self, size: int) -> None:
        """End a piece of this size, and begin those that fit now."""
        self.under_way -= size
        self._serve()

    def _fits(self, size: int) -> bool:
        return not self.under_way or self.under_way + size <= self._most

    def _give_up(self, owner: Owner, waiting: _Waiting) -> None:
        """End a wait early. If the turn came in the same moment, the next one gets it."""
        line = self._waiting.get(owner)
        if waiting.turn.done() and not waiting.turn.cancelled():
            self.under_way -= waiting.size
        elif line is not None and waiting in line:
            line.remove(waiting)
            if not line:
                del self._waiting[owner]
        self._serve()

    def _serve(self) -> None:
        """Give turns as long as the next piece fits. Smaller pieces do not overtake a large one that waits."""
        while self._waiting:
            owner, line = next(iter(self._waiting.items()))
            if not self._fits(line[0].size):
                return
            size, turn = line.popleft()
            del self._waiting[owner]
            if line:
                self._waiting[owner] = line
            if not turn.done():
                self.under_way += size
                turn.set_result(None)
