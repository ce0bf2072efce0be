"""Seeds in which nodes heal: three disks are the same in the end, without a read."""

from __future__ import annotations

import pytest

from tests.simulation.healing import run_healing
from tests.simulation.world import scenario

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_disks_become_the_same_and_no_rule_is_broken(seed: int) -> None:
    done = run_healing(scenario(seed))
    assert done.violation is None, f"seed {seed}: {done.violation}"


def test_a_seed_is_the_same_run_each_time() -> None:
    assert run_healing(scenario(8)).trace == run_healing(scenario(8)).trace
