"""Seeds in which nodes heal: three disks that are the same in the end, without a read; and healing undone, which is noticed."""

from __future__ import annotations

import pytest

from quorumvault import copying
from quorumvault.healing import scrub
from quorumvault.inventory import Inventory
from quorumvault.protocol import antientropy, records
from quorumvault.replica import Replica
from tests.simulation.healing import run_healing
from tests.simulation.mutants import Mutant, applied
from tests.simulation.world import scenario

SEEDS = range(1, 13)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_disks_become_the_same_and_no_rule_is_broken(seed: int) -> None:
    done = run_healing(scenario(seed))
    assert done.violation is None, f"seed {seed}: {done.violation}"


def test_a_seed_is_the_same_run_each_time() -> None:
    assert run_healing(scenario(8)).trace == run_healing(scenario(8)).trace


class _Choice:
    """In the place of the module ``records``: unequal bytes are merged by choosing one of them."""

    CONFLICT_MARK = records.CONFLICT_MARK
    holds_value = staticmethod(records.holds_value)
    sealed_of = staticmethod(records.sealed_of)
    merge = staticmethod(min)


#: Each with a seed by which it is noticed, or soon after it.
MUTANTS = (
    (2, "takes nothing", "convergence", (Replica, "mend", lambda replica, keys, values: 0)),
    (1, "one sum for all", "convergence", (antientropy, "differing", lambda one, other: [])),
    (7, "unequal bytes by choice", None, (copying, "records", _Choice)),
    (50, "rot is believed", None, (Inventory, "acceptable", lambda inventory, offered: dict(offered))),
    (7, "rot stays", "convergence", (scrub, "merge_records", lambda replica, theirs: 0)),
)


@pytest.mark.parametrize(("seed", "name", "rule", "patch"), MUTANTS, ids=[name for _, name, *_ in MUTANTS])
def test_healing_undone_is_noticed(seed: int, name: str, rule: str | None, patch: tuple[object, str, object]) -> None:
    with applied(Mutant(name, "healing", (patch,))):
        for chosen in range(seed, seed + 20):
            found = run_healing(scenario(chosen)).violation
            if found is not None:
                assert found.rule != "exception", found.detail
                assert rule in (None, found.rule)
                return
    pytest.fail("no seed noticed it")
