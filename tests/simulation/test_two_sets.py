"""Seeds with two sets of three nodes, an owner's epoch across them, and faults on each."""

from collections import Counter

from tests.rigs.undone.mutant import TWO_SETS
from tests.simulation.plays import PLAYS


def test_no_token_is_of_an_epoch_that_its_owner_has_left_on_any_set() -> None:
    """Checks the design in docs/scale.md, which is not built."""
    branches: Counter[str] = Counter()
    for seed in (1, 2, 3, 8):
        done = PLAYS[TWO_SETS].seed(seed)
        assert done.violation is None, f"seed {seed}: {done.violation}"
        branches.update(done.branches)
    assert branches["adopted across sets"] > 10
    assert branches["parts on both sets"] > 20
    assert branches["raised on the first set alone"] > 0
