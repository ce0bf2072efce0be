"""Computes the figures of a history: speed and availability. Pure; judges nothing. The effects of faults: aftermath.py."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from chaos.summary import Operation, Series, Through
from chaos.testbed.checkers import EPOCH_AHEAD
from chaos.testbed.history import (
    READER,
    Action,
    Complete,
    Convergence,
    FaultBegan,
    FaultEnded,
    Invoke,
    Machine,
    Mending,
    Outcome,
    Record,
    Unsent,
    Whole,
    paired,
)

#: The approximate number of columns in a picture of a run.
_BUCKETS = 240
_WIDTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)

KeyT = TypeVar("KeyT")


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, from its invoke on. ``took`` is None if it never ended.

    ``ok``: it was answered correctly. The correct answer to a rotate from an epoch not yet reached is a refusal.
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
        """The time of its end; infinite if it never ended."""
        return math.inf if self.took is None else self.at + self.took


class Window(NamedTuple):
    """A fault from its beginning to its end."""

    fault: FaultBegan
    ended: float

    @property
    def began(self) -> float:
        return self.fault.at


class Try(NamedTuple):
    """A client's request: a call, or a request that was due and not sent."""

    node: str
    at: float
    over: float
    ok: bool


class Measured(NamedTuple):
    """``calls``: in the order of their invokes, without those that read everything back at the end.

    ``tries``: the calls, and the requests not sent. ``mending``: the times from which a disk was being mended. ``whole``: the
    times at which all nodes were whole.
    """

    calls: list[Call]
    tries: list[Try]
    windows: list[Window]
    mending: list[float]
    whole: list[float]
    convergences: list[Convergence]
    machine: list[Machine]
    end: float


def measured(records: Sequence[Record]) -> Measured:
    """Extracts calls and faults from a history. A fault without an end lasts as long as the history."""
    end = max((getattr(record, "at", 0.0) for record in records), default=0.0)
    ended = {record.number: record.at for record in records if isinstance(record, FaultEnded)}
    calls = [_call(*call) for call in paired(records).values() if call[0].client != READER]
    tries = [Try(call.node, call.at, call.over, call.ok) for call in calls]
    tries += [Try(record.node, record.at, record.at, ok=False) for record in records if isinstance(record, Unsent)]
    return Measured(
        calls=calls,
        tries=sorted(tries, key=lambda each: each.at),
        windows=[Window(record, ended.get(record.number, end)) for record in records if isinstance(record, FaultBegan)],
        mending=[record.at for record in records if isinstance(record, Mending)],
        whole=[record.at for record in records if isinstance(record, Whole)],
        convergences=[record for record in records if isinstance(record, Convergence)],
        machine=[record for record in records if isinstance(record, Machine)],
        end=end,
    )


def _call(invoke: Invoke, complete: Complete | None) -> Call:
    outcome = Outcome.UNKNOWN if complete is None else complete.outcome
    took = None if complete is None else complete.at - invoke.at
    ok = complete is not None and (outcome is Outcome.OK or complete.why == EPOCH_AHEAD)
    return Call(invoke.action, invoke.node, invoke.at, len(invoke.given), outcome, took, ok)


def operations(calls: Sequence[Call]) -> dict[str, Operation]:
    """Returns the figures by action, in the order in which the actions first occur."""
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
    """Returns the bucket width with which a run of this length has about as many buckets as a picture has columns."""
    return next((width for width in _WIDTHS if end / width <= _BUCKETS), _WIDTHS[-1])


def series(calls: Sequence[Call], end: float, width: float) -> dict[str, Series]:
    return {action.value: _series(_bucketed(group, end, width)) for action, group in _grouped(calls, lambda c: c.action).items()}


def _series(buckets: Sequence[Sequence[Call]]) -> Series:
    took = [sorted(_latencies(bucket)) for bucket in buckets]
    return Series(*_counts(buckets), *(tuple(quantile(each, share) for each in took) for share in (0.5, 0.99)))


def _counts(buckets: Sequence[Sequence[Call]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns, for each bucket, the number of calls, and the number of those that were ok."""
    return tuple(map(len, buckets)), tuple(sum(call.ok for call in bucket) for bucket in buckets)


def availability(calls: Sequence[Call], nodes: Iterable[str], end: float, width: float) -> dict[str, Through]:
    """Returns the number of requests through each node, and of those that were ok, by bucket."""
    by_node = _grouped(calls, lambda call: call.node)
    return {node: Through(*_counts(_bucketed(by_node.get(node, []), end, width))) for node in nodes}


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Returns the smallest value that at least this share of the values does not exceed. None if there are no values."""
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
