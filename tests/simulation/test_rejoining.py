"""Seeds in which disks are lost and replaced; and rules of the replacement undone, which is noticed."""

from __future__ import annotations

import pytest

from quorumvault import copying
from quorumvault import replica as replicas
from quorumvault.protocol import joining
from quorumvault.replica import Replica
from tests.model import test_rejoin as undone
from tests.simulation.disks import Disk
from tests.simulation.mutants import Mutant, Patch, applied
from tests.simulation.nodes import Node
from tests.simulation.rejoining import Rejoining, losing, run_rejoining
from tests.simulation.world import World

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_disks_are_replaced_and_no_rule_is_broken(seed: int) -> None:
    done = run_rejoining(losing(seed))
    assert done.violation is None, f"seed {seed}: {done.violation}"


def test_disks_are_lost_and_join_in_every_seed() -> None:
    for seed in SEEDS:
        world = World(losing(seed))
        rejoining = Rejoining(world, seed)
        world.play(losing(seed).calls)
        assert rejoining.lost >= 1
        assert rejoining.joined >= 1


def test_a_seed_is_the_same_run_each_time() -> None:
    assert run_rejoining(losing(8)).trace == run_rejoining(losing(8)).trace


def _same_disk(node: Node, disk: bytes) -> None:
    """The store is gone, and its identity goes on."""
    node.crash()
    node.disk = Disk()


def _by_choice(store: object, keyring: object, key: bytes, mine: bytes, theirs: bytes) -> bytes:
    return mine


def _nothing_comes(replica: Replica, keys: list[bytes], values: list[bytes]) -> bool:
    return True


#: Each with a seed by which it is noticed, or soon after it. Rules that need an old disk which lives on, or a message that comes
#: much too late, are for tests/model/test_rejoin.py, which meets every order.
MUTANTS: tuple[tuple[int, str, Patch], ...] = (
    (1, "no views", (Node, "lose_disk", _same_disk)),
    (10, "votes while it joins", (replicas, "votes", undone._joining_votes)),
    (1, "copies nothing", (Replica, "merge", _nothing_comes)),
    (1, "copies from one", (joining, "_copy", undone._one_copy)),
    (1, "a view in memory", (Replica, "_become", undone._entered_in_memory)),
    (4, "registers by choice", (copying, "_merge", _by_choice)),
)


@pytest.mark.parametrize(("seed", "name", "patch"), MUTANTS, ids=[name for _, name, _ in MUTANTS])
def test_a_rule_undone_is_noticed(seed: int, name: str, patch: Patch) -> None:
    with applied(Mutant(name, "rejoin", (patch,))):
        for chosen in range(seed, seed + 60):
            found = run_rejoining(losing(chosen)).violation
            if found is not None:
                assert found.rule != "exception", found.detail
                return
    pytest.fail("no seed noticed it")
