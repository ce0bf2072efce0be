"""Seeds in which nodes heal: three disks that are the same in the end, without a read; and healing undone, which is noticed."""

from __future__ import annotations

import pytest

from tests.simulation.healing import run_healing
from tests.simulation.healmutants import HEALING
from tests.simulation.run import first_failure
from tests.simulation.world import scenario

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_disks_become_the_same_and_no_rule_is_broken(seed: int) -> None:
    done = run_healing(scenario(seed))
    assert done.violation is None, f"seed {seed}: {done.violation}"


def test_a_seed_is_the_same_run_each_time() -> None:
    assert run_healing(scenario(8)).trace == run_healing(scenario(8)).trace


#: A seed by which each is noticed, or soon after it.
SAMPLE = {
    "hint-forgotten": 2,
    "takes-nothing": 2,
    "damage-overlooked": 4,
    "merge-by-choice": 7,
    "rot-is-believed": 55,
    "rot-stays": 7,
}
MUTANTS = {mutant.name: mutant for mutant in HEALING}


@pytest.mark.parametrize("name", MUTANTS)
def test_healing_undone_is_noticed(name: str) -> None:
    first = SAMPLE.get(name, 1)
    done = first_failure(MUTANTS[name], range(first, first + 20))
    assert done is not None
    assert done.violation is not None
    assert done.violation.rule != "exception", done.violation.detail
