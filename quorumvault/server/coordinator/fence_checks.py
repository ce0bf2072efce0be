"""Which peers a coordinator asks when it only checks the fence, after its own replica's vote. Pure: times are passed in.

One peer's vote is enough, so one peer is asked. If it has not answered in a short time, the other peer is asked too. A peer that
was late, or could not vote, is not relied on: the next checks ask both peers at once, until that peer answers in time again. So a
peer that is always slow delays one check, and one that is slow now and then at most every second, each by that short time.

This has nothing to do with the hedges of reads (hedging.py): a check costs a peer a look at one register, but behind the reads of
its group, and asking both peers is no more than a write asks.
"""

from collections.abc import Collection
from typing import Final

from quorumvault.server.coordinator.hedging import LEAST_WAIT

#: The time in which a peer should answer, as a share of the least that a read waits (``timeouts.hedge``): 10 of 50 ms. A peer
#: that is not busy takes one or two. A check waits for less than a read does, because it saves less by waiting: two messages.
SHARE: Final = 1 / 5


class FenceChecks:
    """One coordinator's checks of the fence. ``wait``: the seconds in which a peer should answer."""

    def __init__(self, wait: float) -> None:
        self._wait = max(wait, LEAST_WAIT)
        self._late: set[str] = set()

    def relies_on(self, node: str) -> bool:
        """True if the next check may ask this peer alone."""
        return node not in self._late

    def begin(self, now: float) -> "FenceCheck":
        return FenceCheck(self._late, self._wait, now)


class FenceCheck:
    """One check. Implements Patience (exchange.py)."""

    __slots__ = ("_began", "_late", "wait")

    def __init__(self, late: set[str], wait: float, now: float) -> None:
        self._late, self.wait, self._began = late, wait, now

    def answered(self, node: str, now: float) -> None:
        if now - self._began <= self.wait:
            self._late.discard(node)
        else:
            self._late.add(node)

    def refused(self, node: str, now: float) -> None:
        self._late.add(node)

    def overdue(self, awaited: Collection[str], third: str, now: float) -> bool:
        self._late.update(awaited)
        return True

    def hangs(self, node: str, now: float) -> bool:
        return False  # the other peer has been asked

    def decided(self, now: float) -> None: ...
