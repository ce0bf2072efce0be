"""Seeds in which disks are put back from older copies, and rollback marks detect this."""

from tests.simulation.rejoining import losing, run_rejoining
from tests.simulation.rollback import RollingBack
from tests.simulation.world import World

SEEDS = range(1, 13)


def test_disks_are_put_back_and_each_is_found_out() -> None:
    put_back = 0
    for seed in SEEDS:
        made: list[RollingBack] = []

        def attach(world: World, seed: int = seed, made: list[RollingBack] = made) -> RollingBack:
            made.append(RollingBack(world, seed))
            return made[-1]

        assert run_rejoining(losing(seed), attach).violation is None
        (rolling,) = made
        assert rolling.found_out == rolling.put_back
        put_back += rolling.put_back
    assert put_back >= len(SEEDS) // 4
