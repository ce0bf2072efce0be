"""The model can say no: small worlds notice each safety that is undone."""

from __future__ import annotations

import pytest

from tests.model import rejoinscopes, scopes
from tests.model.world import Violation
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import applied

REJOINING = rejoinscopes.SMALL | rejoinscopes.LARGE


@pytest.mark.parametrize(
    ("scope", "mutant"),
    [
        pytest.param(scope, name, marks=pytest.mark.slow if scope in REJOINING else ())
        for name, mutant in UNDONE.items()
        for scope in mutant.scopes
    ],
)
def test_a_safety_undone_is_noticed(scope: str, mutant: str) -> None:
    world = (scopes.SMALL | REJOINING)[scope].world
    with applied(UNDONE[mutant]), pytest.raises(Violation):
        world().explore()
