"""The plans: four axes. On each axis one quantity grows, and everything else stays the same."""

from dataclasses import dataclass
from typing import NamedTuple

#: A key file may have 1 MiB; a key for each of these owners takes 0.8 MB.
_MOST_OWNERS = 5_000
AXES = RECORDS, OWNERS, VALUES, CLIENTS = ("records", "owners", "values", "clients")
#: The length of a social security number or a full name, as in the other benchmarks.
_USUAL_BYTES = 15


class Store(NamedTuple):
    """A cluster's content: ``records`` shared evenly among ``owners``, and the bytes of each value."""

    records: int
    owners: int
    value_bytes: int


@dataclass(frozen=True, slots=True)
class Point:
    """One place on an axis: a store, and requests of ``batch`` values each, ``at_once`` of them under way."""

    axis: str
    store: Store
    batch: int
    at_once: int
    requests: int

    @property
    def x(self) -> int:
        """The quantity that grows along the axis."""
        store = self.store
        return {RECORDS: store.records, OWNERS: store.owners, VALUES: store.value_bytes, CLIENTS: self.at_once}[self.axis]


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """``repetitions``: of each measurement. ``runs``: the axes. ``idle``: seconds without requests."""

    name: str
    points: tuple[Point, ...]
    repetitions: int
    idle: float
    runs: tuple[str, ...] = AXES


GROWTH = GrowthPlan(
    "growth",
    (
        *(Point(RECORDS, Store(records, 1, _USUAL_BYTES), 1_000, 6, 150) for records in (100_000, 1_000_000, 10_000_000)),
        *(Point(OWNERS, Store(1_000_000, owners, _USUAL_BYTES), 100, 6, 600) for owners in (1, 100, _MOST_OWNERS)),
        *(Point(VALUES, Store(30_000, 1, value_bytes), 10, 6, 400) for value_bytes in (10, 1_000, 10_000)),
        *(Point(CLIENTS, Store(100_000, 1, _USUAL_BYTES), 10, at_once, 800) for at_once in (1, 16, 256)),
    ),
    repetitions=5,
    idle=5.0,
)
#: Shows within a minute that everything works. Its times mean nothing.
GROWTH_SMOKE = GrowthPlan(
    "growth-smoke",
    (
        *(Point(RECORDS, Store(records, 1, _USUAL_BYTES), 100, 6, 12) for records in (1_000, 4_000)),
        *(Point(OWNERS, Store(1_000, owners, _USUAL_BYTES), 10, 6, 12) for owners in (1, 10)),
        *(Point(VALUES, Store(300, 1, value_bytes), 10, 6, 12) for value_bytes in (10, 10_000)),
        *(Point(CLIENTS, Store(1_000, 1, _USUAL_BYTES), 10, at_once, 300) for at_once in (1, 256)),
    ),
    repetitions=1,
    idle=0.5,
)
GROWTH_PLANS = {plan.name: plan for plan in (GROWTH, GROWTH_SMOKE)}
