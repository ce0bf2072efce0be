"""How many items go into one request: fewer once a node had no answer in time, and more again as answers come. Pure.

    no answer in time             half as many as were asked for
    answered                      FEWEST more
    answered in half of the time  twice as many: their answer would have been in time too

So a cluster that is busy with others is asked for less at once, and a run beside them goes on slowly where it would have ended.
It is TCP's rule for a path of unknown width: down by half, up by little, and up fast as long as there is room. All calls of a
client share what was learnt. Threads may race here: the worst that comes of it is one request of another size.
"""

import sys
from typing import Final

#: A request of so many items takes a node as long as one of a single item does: fewer would not be answered sooner.
FEWEST: Final = 100


class Pace:
    """``items`` is the most that a request asks for at present; ``most`` is what the caller allows, None for any number."""

    def __init__(self, most: int | None) -> None:
        self._most = sys.maxsize if most is None else most
        self.items = self._most

    def late(self, items: int) -> bool:
        """Notes that a request of so many items had no answer in time. Returns whether to ask for fewer."""
        if items <= FEWEST:
            return False
        self.items = min(self.items, max(FEWEST, items // 2))
        return True

    def answered(self, items: int, seconds: float, allowed: float) -> None:
        """Notes that a request of so many items was answered after ``seconds``, of those that it was ``allowed`` to take."""
        if items >= self.items:
            grown = 2 * self.items if 2 * seconds <= allowed else self.items + FEWEST
            self.items = min(grown, self._most)

    def cut(self, run: slice) -> tuple[slice, slice | None]:
        """Returns as much of a run as is asked for at once, and the rest of it, if there is any."""
        stop = run.start + self.items
        return (run, None) if run.stop <= stop else (slice(run.start, stop), slice(stop, run.stop))
