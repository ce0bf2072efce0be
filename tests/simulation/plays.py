"""All plays by name: how each makes a scenario from a seed, and how it runs and judges the scenario."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.rigs.undone.mutant import FILES, HEALING_NODES, LINKS, LOST_DISKS, PUT_BACK, REQUESTS, REVOKED, TWO_SETS
from tests.simulation.files import filing, run_files
from tests.simulation.healing import run_healing
from tests.simulation.links import linking, run_links
from tests.simulation.rejoining import losing, run_rejoining
from tests.simulation.revoking import revoking, run_revoking
from tests.simulation.rollback import run_rollback
from tests.simulation.two_sets import run_two_sets
from tests.simulation.world import Run, Scenario, run, scenario


@dataclass(frozen=True)
class Play:
    scenario: Callable[[int], Scenario]
    run: Callable[[Scenario], Run]

    def seed(self, seed: int) -> Run:
        return self.run(self.scenario(seed))


PLAYS = {
    REQUESTS: Play(scenario, run),
    LOST_DISKS: Play(losing, run_rejoining),
    PUT_BACK: Play(losing, run_rollback),
    HEALING_NODES: Play(scenario, run_healing),
    REVOKED: Play(revoking, run_revoking),
    TWO_SETS: Play(scenario, run_two_sets),
    FILES: Play(filing, run_files),
    LINKS: Play(linking, run_links),
}
