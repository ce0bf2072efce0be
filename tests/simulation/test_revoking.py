"""Seeds in which API keys are used and revoked while disks are lost and all other faults happen."""

from collections import Counter

from tests.rigs.undone.mutant import REVOKED
from tests.simulation.plays import PLAYS


def test_a_revoked_key_is_dead_and_every_other_one_is_taken() -> None:
    """Proves: a revoked key stays revoked; no key without knowledge."""
    branches: Counter[str] = Counter()
    for seed in (1, 2, 3, 8):
        done = PLAYS[REVOKED].seed(seed)
        assert done.violation is None, f"seed {seed}: {done.violation}"
        branches.update(done.branches)
    assert branches["revocations"] > 20
    assert branches["revocations refused"] > 0
    assert branches["keys not taken for want of knowledge"] > 20
