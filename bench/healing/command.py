"""A whole healing run: runs each of its parts on a cluster of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from bench.healing import size
from bench.healing.mending import Mending
from bench.healing.plan import AWAY, LOST, ROTTEN, SIZE, HealingPlan
from bench.healing.report import Away, HealingReport, Lost, Rotten, Size
from bench.load import OWNER
from bench.report import Tell, today
from chaos.testbed.cluster import Cluster


def measure(plan: HealingPlan, place: Path, tell: Tell) -> HealingReport:
    """Runs a plan in an empty directory. Raises ClusterError, LoadFailed, Unanswered, WrongAnswer."""
    found = {name: _run(name, place / name, plan, tell) for name in plan.runs}
    return replace(HealingReport(*today(), plan.name, plan.records), **found)


def _run(name: str, directory: Path, plan: HealingPlan, tell: Tell) -> Away | Lost | Rotten | Size:
    """Runs one part on a cluster of its own, which is deleted afterwards."""
    directory.mkdir()
    try:
        if name == SIZE:
            return size.measure(directory, plan, tell)
        with size.filled(directory / "cluster", plan.records, tell, lambda where: Cluster.create(where, (OWNER,))) as vault:
            mending = Mending(vault, plan, tell)
            runs: dict[str, Callable[[], Away | Lost | Rotten]] = {AWAY: mending.away, LOST: mending.lost, ROTTEN: mending.rotten}
            return runs[name]()
    finally:
        shutil.rmtree(directory)
