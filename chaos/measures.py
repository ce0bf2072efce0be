"""Works out the figures of a history: speed, availability, and the seconds until all was well again. Pure; judges nothing."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from chaos.summary import NOTICED_SECONDS, RECOVERY_AIM, SERVED_AIM, Aims, FaultSeen, Operation, Series, Share, Through
from chaos.testbed.checkers import EPOCH_AHEAD
from chaos.testbed.history import READER, Action, Complete, FaultBegan, FaultEnded, Invoke, Outcome, Record, paired

#: A picture of a run has about so many columns.
_BUCKETS = 240
_WIDTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)

KeyT = TypeVar("KeyT")


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, from its invoke on. ``took`` is None if it never ended.

    ``ok``: it was answered as it should be; a rotate from an epoch that is not there yet should be refused.
    """

    action: Action
    node: str
    at: float
    items: int
    outcome: Outcome
    took: float | None
    ok: bool

    @property
    def over(self) -> float:
        """When it was; never, if it never ended."""
        return math.inf if self.took is None else self.at + self.took


class Window(NamedTuple):
    """A fault from its begin to its end."""

    fault: FaultBegan
    ended: float

    @property
    def began(self) -> float:
        return self.fault.at


class Measured(NamedTuple):
    """``calls`` in the order of their invokes; those that were asked to read all back at the end are not among them."""

    calls: list[Call]
    windows: list[Window]
    end: float


def measured(records: Sequence[Record]) -> Measured:
    """Calls and faults out of a history. A fault that has no end lasts as long as the history."""
    end = max((getattr(record, "at", 0.0) for record in records), default=0.0)
    ended = {record.number: record.at for record in records if isinstance(record, FaultEnded)}
    return Measured(
        calls=[_call(*call) for call in paired(records).values() if call[0].client != READER],
        windows=[Window(record, ended.get(record.number, end)) for record in records if isinstance(record, FaultBegan)],
        end=end,
    )


def _call(invoke: Invoke, complete: Complete | None) -> Call:
    outcome = Outcome.UNKNOWN if complete is None else complete.outcome
    took = None if complete is None else complete.at - invoke.at
    ok = complete is not None and (outcome is Outcome.OK or complete.why == EPOCH_AHEAD)
    return Call(invoke.action, invoke.node, invoke.at, len(invoke.given), outcome, took, ok)


def operations(calls: Sequence[Call]) -> dict[str, Operation]:
    """Returns the figures by action, in the order in which the actions first came."""
    return {action.value: _operation(group) for action, group in _grouped(calls, lambda call: call.action).items()}


def _operation(calls: Sequence[Call]) -> Operation:
    took = sorted(_latencies(calls))
    return Operation(
        asked=len(calls),
        ok=sum(call.ok for call in calls),
        fail=sum(call.outcome is Outcome.FAIL and not call.ok for call in calls),
        unknown=sum(call.outcome is Outcome.UNKNOWN for call in calls),
        items=sum(call.items for call in calls if call.ok),
        p50=quantile(took, 0.5),
        p99=quantile(took, 0.99),
        slowest=took[-1] if took else None,
    )


def bucket_seconds(end: float) -> float:
    """The width that shows a run of this length in about as many buckets as a picture has columns."""
    return next((width for width in _WIDTHS if end / width <= _BUCKETS), _WIDTHS[-1])


def series(calls: Sequence[Call], end: float, width: float) -> dict[str, Series]:
    return {action.value: _series(_bucketed(group, end, width)) for action, group in _grouped(calls, lambda c: c.action).items()}


def _series(buckets: Sequence[Sequence[Call]]) -> Series:
    took = [sorted(_latencies(bucket)) for bucket in buckets]
    return Series(*_counts(buckets), *(tuple(quantile(each, share) for each in took) for share in (0.5, 0.99)))


def _counts(buckets: Sequence[Sequence[Call]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many calls each bucket has, and how many of them were ok."""
    return tuple(map(len, buckets)), tuple(sum(call.ok for call in bucket) for bucket in buckets)


def availability(calls: Sequence[Call], nodes: Iterable[str], end: float, width: float) -> dict[str, Through]:
    """Requests through each node, and how many of them were ok."""
    by_node = _grouped(calls, lambda call: call.node)
    return {node: Through(*_counts(_bucketed(by_node.get(node, []), end, width))) for node in nodes}


def faults(found: Measured) -> tuple[FaultSeen, ...]:
    return tuple(_seen(window, found) for window in found.windows)


def _seen(window: Window, found: Measured) -> FaultSeen:
    rest = [other for other in found.windows if other is not window]
    alone = not any(other.began < window.ended and window.began < other.ended for other in rest)
    noticed = window.began + NOTICED_SECONDS
    served = [call for call in found.calls if noticed <= call.at < window.ended and call.node not in window.fault.nodes]
    # What comes after its end is told apart only as long as nothing else goes wrong: calls that were over by then.
    calm_until = min((other.began for other in rest if other.ended > window.ended), default=math.inf)
    after = [call for call in found.calls if window.ended <= call.at and call.over <= calm_until]
    return FaultSeen(
        number=window.fault.number,
        kind=window.fault.kind,
        nodes=window.fault.nodes,
        began=window.began,
        ended=window.ended,
        words=window.fault.words,
        alone=alone,
        others=Share(len(served), sum(call.ok for call in served)),
        back_seconds=_back(window, after),
        calm_seconds=max((call.at - window.ended for call in after if not call.ok), default=0.0) if after else None,
    )


def _back(window: Window, after: Sequence[Call]) -> float | None:
    """Returns the seconds from the fault's end until each of its nodes had answered a request; None if one did not."""
    firsts = []
    for node in window.fault.nodes:
        answered = [call.over for call in after if call.node == node and call.ok]
        if not answered:
            return None
        firsts.append(min(answered) - window.ended)
    return max(firsts, default=None)


def aims(seen: Iterable[FaultSeen]) -> Aims:
    """Over the faults that were on one node, alone."""
    single = [fault for fault in seen if fault.alone and len(fault.nodes) == 1]
    recovered = [fault.calm_seconds for fault in single if fault.calm_seconds is not None]
    return Aims(
        served=Share(sum(fault.others.asked for fault in single), sum(fault.others.ok for fault in single)),
        served_aim=SERVED_AIM,
        recovery_worst=max(recovered, default=None),
        recovery_median=statistics.median(recovered) if recovered else None,
        recovery_aim=RECOVERY_AIM,
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest of the values that so large a share of them does not exceed. None if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _latencies(calls: Iterable[Call]) -> list[float]:
    return [call.took for call in calls if call.ok and call.took is not None]


def _grouped(calls: Iterable[Call], key: Callable[[Call], KeyT]) -> dict[KeyT, list[Call]]:
    groups: dict[KeyT, list[Call]] = {}
    for call in calls:
        groups.setdefault(key(call), []).append(call)
    return groups


def _bucketed(calls: Iterable[Call], end: float, width: float) -> list[list[Call]]:
    buckets: list[list[Call]] = [[] for _ in range(int(end / width) + 1)]
    for call in calls:
        buckets[int(call.at / width)].append(call)
    return buckets
