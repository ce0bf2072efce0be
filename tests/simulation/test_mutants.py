"""The checkers notice each safety that is undone."""

import pytest

from tests.rigs.undone import SIMULATED, UNDONE
from tests.simulation.run import first_failure

#: Seeds within which a mutant has to be noticed.
WITHIN = 60
TRIED = {name: mutant.seed for name, mutant in SIMULATED.items() if mutant.seed is not None}


@pytest.mark.parametrize("name", TRIED)
def test_the_simulator_notices_a_safety_undone(name: str) -> None:
    done = first_failure(UNDONE[name], range(TRIED[name], TRIED[name] + WITHIN))
    assert done is not None
    assert done.violation is not None
    assert done.violation.rule != "exception", done.violation.detail


def test_each_mutant_has_somebody_who_notices_it() -> None:
    noticed = {name for name, mutant in UNDONE.items() if mutant.play or mutant.scopes or mutant.faults or mutant.intruder}
    assert noticed == UNDONE.keys()
