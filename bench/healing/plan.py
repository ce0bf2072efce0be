"""The plans of healing runs: the number of records, and the runs with them."""

from dataclasses import dataclass

#: The runs: a node is down for a while; a node loses its disk; bits flip in its tables; and the cost of many records.
RUNS = AWAY, LOST, ROTTEN, SIZE = ("away", "lost", "rotten", "size")


@dataclass(frozen=True, slots=True)
class HealingPlan:
    """``runs``: the runs among RUNS that belong to the plan.

    ``load``: the share of capacity that clients ask for while a node is broken. ``away``: seconds for which the node is down.
    ``before``: seconds for which the load is measured while nothing is wrong. ``probes``: requests that measure capacity.
    ``few``: the number of records to compare new tokens with, ``pairs`` times, with ``new`` values each.
    """

    name: str
    records: int
    runs: tuple[str, ...]
    load: float = 0.1
    away: float = 60.0
    before: float = 20.0
    probes: int = 500
    few: int = 100_000
    pairs: int = 5
    new: int = 200_000


HEALING = HealingPlan("healing", records=1_000_000, runs=(AWAY, LOST, ROTTEN))
HEALING_LARGE = HealingPlan("healing-large", records=10_000_000, runs=(SIZE,))
#: Shows in half a minute that everything still works. Its times mean nothing.
HEALING_SMOKE = HealingPlan(
    "healing-smoke", records=6_000, runs=RUNS, away=2.0, before=1.0, probes=50, few=1_000, pairs=1, new=2_000
)
HEALING_PLANS = {plan.name: plan for plan in (HEALING, HEALING_LARGE, HEALING_SMOKE)}
