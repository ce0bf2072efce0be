"""The plans of the vault's benchmark: what to measure, in which order, how often, and with how many requests."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.work import Operation

BATCHES = (1, 100, 1_000, 10_000)
AT_ONCE = (1, 6, 16)
#: The number of pairs of value and token that a run keeps, to ask for them again.
_KEPT = 200_000


@dataclass(frozen=True, slots=True)
class Group:
    """One operation at one batch size, with each number of requests at once in turn."""

    operation: Operation
    batch: int
    at_once: tuple[int, ...] = AT_ONCE


@dataclass(frozen=True, slots=True)
class Plan:
    """``requests`` and ``floor_requests``: the number of requests in one measurement, by batch size.

    ``prefill``: the values stored in vault and floor before any measurement. Later both store about equally many, since a new
    record costs LevelDB more compaction the more records it holds. ``warm_up``: the values read from both before each operation,
    since LevelDB also compacts data that reads find scattered over files, mostly right after writes.
    """

    name: str
    groups: tuple[Group, ...]
    repetitions: int
    prefill: int
    warm_up: int
    requests: Mapping[int, int]
    floor_requests: Mapping[int, int]

    def requests_of(self, batch: int, at_once: int) -> int:
        """Returns the number of requests: at least two for each of those at once, whatever the plan says."""
        return max(self.requests[batch], 2 * at_once)

    @property
    def stride(self) -> int:
        """One in this many pairs is kept."""
        new = sum(
            group.batch * self.requests_of(group.batch, at_once)
            for group in self.groups
            if group.operation is Operation.NEW
            for at_once in group.at_once
        )
        return max(1, (self.prefill + self.repetitions * new) // _KEPT)


FULL = Plan(
    name="full",
    groups=tuple(Group(operation, batch) for operation in Operation for batch in BATCHES),
    repetitions=3,
    prefill=300_000,
    warm_up=100_000,
    requests={1: 800, 100: 300, 1_000: 40, 10_000: 4},
    floor_requests={1: 300, 100: 225, 1_000: 30, 10_000: 12},
)

#: Shows within half a minute whether a change makes something several times more expensive.
SMOKE = Plan(
    name="smoke",
    groups=(
        Group(Operation.NEW, 1_000, (6,)),
        Group(Operation.REPEATED, 1_000, (6,)),
        Group(Operation.RECOVERED, 1_000, (6,)),
        Group(Operation.NEW, 1, (1, 16)),
    ),
    repetitions=3,
    prefill=20_000,
    warm_up=10_000,
    requests={1: 400, 1_000: 40},
    floor_requests={1: 200, 1_000: 20},
)
PLANS = {plan.name: plan for plan in (FULL, SMOKE)}
