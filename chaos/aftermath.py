"""The effects of each fault: the share of requests served meanwhile, and the time until all effects ended. Pure; judges nothing.

Effects may outlast the fault: nodes that are not back, requests that hang, replicas that differ. This module follows each effect
to its end, through the next fault too where the effects of the two can be told apart.
"""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from chaos.measures import Measured, Try, Window
from chaos.summary import CONVERGENCE_AIM, NOTICED_SECONDS, RECOVERY_AIM, FaultSeen, Load, Share, Spread
from chaos.testbed.history import Machine

#: Seconds, a share, seconds. The machine is too busy to judge a node by its times if 40 ms of CPU work, an answer on loopback or
#: a pause is this late while other processes take this share of the CPU, or if a small sync takes this long. CPU of the nodes and
#: the harness is no excuse.
_LATE, _OTHERS, _SYNC = 0.1, 0.25, 0.5
#: Seconds that a busy moment has effects: a node silent for 2 s counts as down, and is heard again soon after.
_LASTS = 2.0
#: A request that has waited this long when the next fault begins is not waiting because of that fault.
_PATIENCE = 1.0


class BusyTimes:
    """The times at which the machine was too busy, each with a moment after it."""

    def __init__(self, machine: Iterable[Machine]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for seen in machine:
            if is_busy(seen):
                if self._ends and seen.since <= self._ends[-1]:
                    self._ends[-1] = seen.at + _LASTS
                else:
                    self._begins.append(seen.since)
                    self._ends.append(seen.at + _LASTS)

    def meet(self, began: float, ended: float) -> bool:
        """Returns whether this time overlaps a busy one."""
        place = bisect_right(self._begins, ended) - 1
        return place >= 0 and self._ends[place] >= began


def is_busy(seen: Machine) -> bool:
    return (seen.late >= _LATE and seen.others >= _OTHERS) or seen.sync >= _SYNC


def load(machine: Sequence[Machine]) -> Load | None:
    if not machine:
        return None
    figures = [[getattr(seen, name) for seen in machine] for name in ("late", "sync", "ours", "others", "load")]
    return Load(sum(map(is_busy, machine)), *(_of(spread(each)) for each in figures))


def _of(found: Spread | None) -> Spread:
    assert found is not None
    return found


def spread(figures: Sequence[float]) -> Spread | None:
    return Spread(len(figures), min(figures), statistics.median(figures), max(figures)) if figures else None


def faults(found: Measured) -> tuple[FaultSeen, ...]:
    busy = BusyTimes(found.machine)
    return tuple(_Aftermath(window, found).seen(busy) for window in found.windows)


class _Aftermath:
    """One fault among the others of a run."""

    def __init__(self, window: Window, found: Measured) -> None:
        rest = [other for other in found.windows if other is not window]
        later = [other for other in rest if other.ended > window.ended]
        self._window, self._found = window, found
        #: The time of the next fault after this one's end; infinite if there is none.
        self._next = min((other.began for other in later), default=math.inf)
        #: The time until which this fault's nodes count as not back: until another fault hits one of them. If any fault comes
        #: before they have to be back, two nodes may be away at a time, and nothing more can be concluded.
        self._followed_until = self._next
        if self._next >= window.ended + RECOVERY_AIM:
            nodes = set(window.fault.nodes)
            self._followed_until = min((each.began for each in later if nodes & set(each.fault.nodes)), default=math.inf)
        overlapped = any(other.began < window.ended and window.began < other.ended for other in rest)
        before = max((other.ended for other in rest if other.ended <= window.began), default=None)
        self._alone = not overlapped and (before is None or any(before <= at <= window.began for at in found.whole))

    def seen(self, busy: BusyTimes) -> FaultSeen:
        fault, began, ended = self._window.fault, self._window.began, self._window.ended
        others = [each for each in self._tries(began + NOTICED_SECONDS, ended) if each.node not in fault.nodes]
        back = self._back()
        calm = self._calm(back)
        converged = next((each.at for each in self._found.convergences if each.equal and ended <= each.at <= self._next), None)
        watched, mended = self._watched(), self._mended()
        looked = min(watched, mended + CONVERGENCE_AIM) if converged is None else converged - ended
        until = ended + max(calm or 0.0, back or 0.0, looked)
        late = [seen.late for seen in self._found.machine if seen.at > began and seen.since < until]
        return FaultSeen(
            number=fault.number,
            kind=fault.kind,
            nodes=fault.nodes,
            began=began,
            ended=ended,
            words=fault.words,
            alone=self._alone,
            others=_share(others),
            quiet=_share([each for each in others if not busy.meet(each.at, each.over)]),
            back_seconds=back,
            calm_seconds=calm,
            mended_seconds=mended,
            converged_seconds=None if converged is None else converged - ended,
            watched_seconds=watched,
            late=max(late, default=None),
            busy=busy.meet(ended, until),
        )

    def _back(self) -> float | None:
        """Returns the seconds from the fault's end until each of its nodes had answered a request; None if another fault hit a
        node before it answered."""
        ended, firsts = self._window.ended, dict.fromkeys(self._window.fault.nodes, math.inf)
        for each in self._tries(ended, self._followed_until):
            if each.at > max(firsts.values(), default=-math.inf):
                break
            if each.ok and each.over <= self._followed_until and each.node in firsts:
                firsts[each.node] = min(firsts[each.node], each.over)
        last = max(firsts.values(), default=math.inf)
        return None if last == math.inf else last - ended

    def _calm(self, back: float | None) -> float | None:
        ended = self._window.ended
        away_until = self._followed_until if back is None else ended + back
        after = [
            each
            for each in self._tries(ended, max(self._next, away_until))
            if self._came_before_the_next(each) or (each.node in self._window.fault.nodes and each.at < away_until)
        ]
        return max((each.at - ended for each in after if not each.ok), default=0.0) if after else None

    def _came_before_the_next(self, each: Try) -> bool:
        """Returns whether a request ended before the next fault, or had waited long by then."""
        return each.at < self._next and (each.over <= self._next or each.at <= self._next - _PATIENCE)

    def _tries(self, began: float, ended: float) -> Sequence[Try]:
        """Returns the requests made in this time."""
        tries = self._found.tries
        return tries[bisect_left(tries, began, key=_at) : bisect_left(tries, ended, key=_at)]

    def _mended(self) -> float:
        ended = self._window.ended
        began = max((at for at in self._found.mending if ended <= at <= self._next), default=None)
        if began is None:
            return 0.0
        return next((at for at in self._found.whole if began <= at <= self._next), ended + self._watched()) - ended

    def _watched(self) -> float:
        given_up = (each.at for each in self._found.convergences if not each.equal and each.at >= self._window.ended)
        return max(min(self._next, next(given_up, self._found.end)) - self._window.ended, 0.0)


def _at(each: Try) -> float:
    return each.at


def _share(tries: Sequence[Try]) -> Share:
    return Share(len(tries), sum(each.ok for each in tries))
