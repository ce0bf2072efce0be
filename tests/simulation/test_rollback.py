"""Seeds in which disks are put back from older copies; and what finds them out undone, which is noticed."""

from __future__ import annotations

import pytest

from quorumvault.healing import remembering
from quorumvault.healing.remembering import Memory
from quorumvault.peers.facts import NodeFacts
from quorumvault.protocol.marks import Mark, Marks
from quorumvault.replica import Replica
from tests.simulation.mutants import Mutant, Patch, applied
from tests.simulation.rejoining import losing
from tests.simulation.rollback import RollingBack, run_rollback
from tests.simulation.world import World

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_disks_that_are_put_back_never_vote_and_no_rule_is_broken(seed: int) -> None:
    done = run_rollback(losing(seed))
    assert done.violation is None, f"seed {seed}: {done.violation}"


def test_disks_are_put_back_and_each_is_found_out() -> None:
    put_back = 0
    for seed in SEEDS:
        world = World(losing(seed))
        rolling = RollingBack(world, seed)
        world.play(losing(seed).calls)
        assert rolling.found_out == rolling.put_back
        put_back += rolling.put_back
    assert put_back >= len(SEEDS) // 4


def test_a_seed_is_the_same_run_each_time() -> None:
    assert run_rollback(losing(3)).trace == run_rollback(losing(3)).trace


def _nothing_is_kept(replica: Replica, marks: Marks) -> bool:
    """Marks are in memory alone."""
    return True


def _trusts(remembered: Mark, start: Mark, sequence: int) -> bool:
    return False


def _counts_starts(remembered: Mark, start: Mark, sequence: int) -> bool:
    return remembered.incarnation > start.incarnation


def _own_alone(memory: Memory, facts: NodeFacts) -> None:
    """What peers remember of this node's disk is not looked at."""
    view = memory._view()
    if view is not None and view.lists(facts.disk):
        memory.acknowledged(facts.disk, Mark(facts.incarnation, facts.sequence))


MUTANTS: tuple[tuple[str, Patch], ...] = (
    ("no marks", (remembering, "contradicts", _trusts)),
    ("marks only in memory", (Replica, "remember", _nothing_is_kept)),
    ("starts are counted, writes are not", (remembering, "contradicts", _counts_starts)),
    ("nobody listens", (Memory, "heard", _own_alone)),
)


@pytest.mark.parametrize(("name", "patch"), MUTANTS, ids=[name for name, _ in MUTANTS])
def test_a_rule_undone_is_noticed(name: str, patch: Patch) -> None:
    with applied(Mutant(name, "marks", (patch,))):
        for seed in range(1, 40):
            found = run_rollback(losing(seed)).violation
            if found is not None:
                assert found.rule != "exception", found.detail
                return
    pytest.fail("no seed noticed it")
