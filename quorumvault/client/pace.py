"""Adapts how many items go into one request, and how long a node may take to answer it. Pure.

    no answer in time             half as many items, and twice the time
    answered                      FEWEST more items
    answered in half of the time  twice as many items, whose answer would be in time too; and half the time, or the usual time

So a client sends less at once to a busy cluster, and its call goes on slowly instead of failing. The size follows TCP's rule for
a path of unknown bandwidth: halve on loss, grow slowly, and grow fast while there is room. The time follows TCP's rule for a path
of unknown latency: double the timeout. Smaller requests alone would not help where requests queue, since small ones wait as long
as large ones: the client would give up on each just before its turn. All calls of a client share this state. Threads may race
here: the worst result is one request of another size.
"""

import sys
from typing import Final

#: A request of this many items takes a node as long as one of a single item: a smaller one would not be answered sooner.
FEWEST: Final = 100
#: The most that the usual time of a node is multiplied by. ClientPolicy.silence is another bound.
_MOST_PATIENT: Final = 8.0


class Pace:
    """``items``: the most items in a request at present. ``most``: the caller's limit, None for any number.

    ``patience``: how many times the usual time a node may take for more than FEWEST items.
    """

    def __init__(self, most: int | None) -> None:
        self._most = sys.maxsize if most is None else most
        self.items = self._most
        self.patience = 1.0

    def late(self, items: int) -> bool:
        """Notes that a request of ``items`` items had no answer in time. Returns whether to ask for fewer."""
        if items <= FEWEST:
            return False
        fewer = max(FEWEST, items // 2)
        if fewer < self.items:
            self.items = fewer
            self.patience = min(2 * self.patience, _MOST_PATIENT)
        return True

    def answered(self, items: int, seconds: float, allowed: float) -> None:
        """Notes that a request of ``items`` items was answered after ``seconds``. ``allowed``: the usual seconds for it."""
        if items < self.items:
            return
        if 2 * seconds <= allowed:
            self.items = min(2 * self.items, self._most)
            self.patience = max(self.patience / 2, 1.0)
        else:
            self.items = min(self.items + FEWEST, self._most)

    def cut(self, run: slice) -> tuple[slice, slice | None]:
        """Returns the part of a run that goes into one request, and the rest of the run, None if there is none."""
        stop = run.start + self.items
        return (run, None) if run.stop <= stop else (slice(run.start, stop), slice(stop, run.stop))
