"""Hedging: when a read asks the third replica because another is slow, and which it asks first. Pure: times are passed in.

A read asks two replicas. If one of them has not answered within the hedge delay, a hedge asks the third. The delay is the larger
of ``timeouts.hedge`` and the 99th percentile of recent reads of about as many keys. Dean and Barroso, "The Tail at Scale" (2013),
wait for the 95th percentile, so that hedges are 5 % at most. Here a budget bounds hedges, as gRPC throttles retries (its proposal
A6): each read earns a twentieth of a hedge. So the delay can be longer, and the hedges are left for the slowest reads. A load
that slows all replicas raises the percentile; until it has risen, the budget bounds the extra requests.

A read that waits for a hung replica must not wait for a budget. If one of the two replicas has answered, and the other has
answered no read at all in twice the delay, the third replaces it at no charge, unless the third is known to be slow too. This
cannot go on, because the late replica is set aside: it is asked last, until it answers in time. To find out, reads ask it in
addition to two others, at intervals that double, at the budget's expense. So no read waits for a replica known to be slow.

Lateness is measured against the first answer to the same read, so a load that slows all replicas sets none aside.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Final

#: Hedges that each read earns: hedges are at most 5 % of reads. BURST can be saved up, as a rare hiccup delays a handful at once.
EARNED: Final = 1 / 20
BURST: Final = 10.0
#: The share of recent reads that may have taken longer than the wait; and a number of slow reads so small that it is chance.
_SLOWEST: Final = 1 / 100
_CHANCE: Final = 2
#: Seconds that one histogram covers. Two histograms are used, so "recent" means the last 10 to 20 seconds.
_WINDOW: Final = 10.0
#: Seconds: the upper bounds of the histogram's buckets, a quarter apart, from a millisecond to half a minute.
_BOUNDS: Final = tuple(0.001 * 1.25**step for step in range(46))
#: The number of size classes: powers of two, up to the size of one round.
_CLASSES: Final = 14
#: Seconds until a replica that was set aside is tried again: the interval doubles each time, from the first to the last.
_FIRST_TRIAL, _LAST_TRIAL = 0.1, 5.0


class Hedge(StrEnum):
    """The outcome of a read's wait for a slow replica."""

    SENT = "sent"  # the third replica was asked, at the budget's expense
    WITHHELD = "withheld"  # the budget was used up; the read goes on waiting
    PASSED_OVER = "passed_over"  # the third replica was asked in place of one that answers no reads
    TRIED = "tried"  # a replica that was set aside was asked in addition to two others


class Budget:
    """The hedges that reads have earned."""

    def __init__(self) -> None:
        self._hedges = BURST

    def earn(self) -> None:
        self._hedges = min(BURST, self._hedges + EARNED)

    def spend(self) -> bool:
        """Take one hedge. Returns False if there is none."""
        if self._hedges < 1:
            return False
        self._hedges -= 1
        return True


class Waits:
    """The wait before a hedge for one size class: the 99th percentile of recent reads, between two bounds, in seconds."""

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self._wait = least
        self._turns_at = -math.inf
        self._newer = [0] * (len(_BOUNDS) + 1)
        self._older = self._newer

    def wait(self, now: float) -> float:
        if now >= self._turns_at:
            self._turn(now)
        return self._wait

    def add(self, seconds: float, now: float) -> None:
        """Count a read that took ``seconds``."""
        if now >= self._turns_at:
            self._turn(now)
        self._newer[bisect_right(_BOUNDS, seconds)] += 1
        if seconds > self._wait:
            self._wait = self._percentile()

    def _turn(self, now: float) -> None:
        recent = now < self._turns_at + _WINDOW
        self._older = self._newer if recent else [0] * len(self._newer)
        self._newer = [0] * len(self._newer)
        self._turns_at = now + _WINDOW
        self._wait = self._percentile()

    def _percentile(self) -> float:
        """The upper bound of the percentile's bucket, so that at most that share of reads is overdue."""
        counts = [newer + older for newer, older in zip(self._newer, self._older, strict=True)]
        most_beyond = max(_CHANCE, sum(counts) * _SLOWEST)
        beyond = 0
        for bound, count in zip((math.inf, *reversed(_BOUNDS)), reversed(counts), strict=True):
            beyond += count
            if beyond > most_beyond:
                return min(max(bound, self._least), self._most)
        return self._least


class _Aside:
    """A replica that was late: how many times in a row, and when it may be tried again."""

    __slots__ = ("_times", "trial_at")

    def __init__(self) -> None:
        self._times = 0
        self.trial_at = -math.inf

    def postpone(self, now: float) -> None:
        self.trial_at = now + min(_LAST_TRIAL, _FIRST_TRIAL * 2.0**self._times)
        self._times = min(self._times + 1, 16)


#: The least wait of a round, in seconds: one with no wait would run in each turn of the event loop until it is answered.
LEAST_WAIT: Final = 0.001


class Hedging:
    """One coordinator's hedges. ``least`` and ``most`` bound the wait before a hedge; ``tell`` is called with each outcome."""

    def __init__(self, least: float, most: float, tell: Callable[[Hedge], None]) -> None:
        self.least = least = max(least, LEAST_WAIT)
        self.tell = tell
        self.budget = Budget()
        self._waits = [Waits(least, max(least, most)) for _ in range(_CLASSES)]
        self._heard: dict[str, float] = {}
        self._aside: dict[str, _Aside] = {}
        self._hanging: set[str] = set()

    def read(self, keys: int, now: float) -> "Read":
        """Begin a read of ``keys`` keys."""
        self.budget.earn()
        waits = self._waits[min(max(keys - 1, 0).bit_length(), _CLASSES - 1)]
        return Read(self, waits, now)

    def is_aside(self, node: str) -> bool:
        """True if the replica was late or refused, and has not answered in time since."""
        return node in self._aside

    def tries(self, node: str, now: float) -> bool:
        """True if a read should ask this replica in addition to two others, to see whether it answers in time again."""
        aside = self._aside.get(node)
        if aside is None or now < aside.trial_at or not self.budget.spend():
            return False
        aside.postpone(now)
        self.tell(Hedge.TRIED)
        return True

    def set_aside(self, node: str, now: float) -> None:
        aside = self._aside.setdefault(node, _Aside())
        if now >= aside.trial_at:
            aside.postpone(now)

    def hear(self, node: str, now: float, *, in_time: bool) -> None:
        """Note that a replica has answered a read."""
        self._heard[node] = now
        self._hanging.discard(node)
        if in_time:
            self._aside.pop(node, None)
        else:
            self.set_aside(node, now)

    def is_hanging(self, node: str) -> bool:
        """True if the replica was given up when it was asked alone, and has answered nothing since, not even late."""
        return node in self._hanging

    def give_up(self, node: str, now: float) -> None:
        """Note that a replica that was asked alone hangs. It needs no trials: when it recovers, it answers that request."""
        self._hanging.add(node)
        self.set_aside(node, now)

    def is_silent(self, node: str, since: float) -> bool:
        """True if the replica has answered no read since ``since``."""
        return self._heard.get(node, -math.inf) <= since


class Read:
    """The waiting of one read; made by ``Hedging.read``. Implements Patience (exchange.py)."""

    __slots__ = ("_began", "_first", "_hedge", "_hedging", "_waits", "wait")

    def __init__(self, hedging: Hedging, waits: Waits, now: float) -> None:
        self._hedging, self._waits, self._began = hedging, waits, now
        #: The time of the first answer.
        self._first = math.inf
        self._hedge: Hedge | None = None
        self.wait = waits.wait(now)

    def answered(self, node: str, now: float) -> None:
        self._first = min(self._first, now)
        late_after = max(self._hedging.least, self.wait / 2)
        self._hedging.hear(node, now, in_time=now - self._first <= late_after)
        if self._hedge is Hedge.PASSED_OVER and now - self._began <= 2 * self.wait:
            self._waits.add(now - self._began, now)  # it did not hang: the wait was too short

    def refused(self, node: str, now: float) -> None:
        self._hedging.set_aside(node, now)

    def overdue(self, awaited: Collection[str], third: str, now: float) -> bool:
        twice_the_first = 2 * self._first <= now + self._began
        hangs = twice_the_first and all(self._hedging.is_silent(node, self._began) for node in awaited)
        for node in awaited:
            self._hedging.set_aside(node, now)
        before = self._hedge
        if hangs and not self._hedging.is_aside(third):
            self._hedge = Hedge.PASSED_OVER
        else:
            self._hedge = Hedge.SENT if self._hedging.budget.spend() else Hedge.WITHHELD
        if self._hedge is not before:
            self._hedging.tell(self._hedge)
        return self._hedge is not Hedge.WITHHELD

    def hangs(self, node: str, now: float) -> bool:
        """A wait is over, and the one replica that was asked has not answered. Returns True if it has answered no read meanwhile.

        In that case the read should go on without it. A replica that answers other reads has yet to reach this one.
        """
        if not self._hedging.is_silent(node, now - self.wait):
            return False
        self._first = self._began  # its answer, if it comes, is late
        self._hedging.give_up(node, now)
        self._hedge = Hedge.PASSED_OVER
        self._hedging.tell(self._hedge)
        return True

    def decided(self, now: float) -> None:
        if self._hedge is not Hedge.PASSED_OVER:  # its duration says nothing about other reads
            self._waits.add(now - self._began, now)
