"""The model can fail: small worlds notice each mutant, which undoes one safety."""

import pytest

from tests.model.run import JOINS, WHOLE
from tests.model.world import Violation
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import applied

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("scope", "mutant"), [(scope, name) for name, mutant in UNDONE.items() for scope in mutant.scopes])
def test_a_safety_undone_is_noticed(scope: str, mutant: str) -> None:
    world = (WHOLE | JOINS)[scope].world
    with applied(UNDONE[mutant]), pytest.raises(Violation):
        world().explore()
