"""The registry of mutants, by name; each undoes one safety. Each has to be noticed: one that is not is a hole in the checkers.

The simulator tries mutants with a ``play``, the model those with ``scopes``, the harness those with ``faults``, and the tests of
the peer port those with an ``intruder``. Unit tests cover what no world reaches (by_tests.py). A few mutants are ``covered`` by
another safety, and there is nothing to notice.
"""

from tests.rigs.undone import (
    batches,
    certificates,
    comparisons,
    files,
    gaps,
    groups,
    healing,
    links,
    processes,
    rejoining,
    requests,
    revocations,
    rollback,
    sets,
    settled,
    views,
)

_MODULES = (
    requests, batches, groups, rejoining, views, rollback, healing, comparisons, gaps, processes, settled, certificates,
    revocations, sets, files, links,
)  # fmt: skip
UNDONE = {mutant.name: mutant for module in _MODULES for mutant in module.MUTANTS}
#: The mutants that bin/simulate can show: by a seed, in a small world, by an intruder or by a unit test.
SIMULATED = {
    name: mutant
    for name, mutant in UNDONE.items()
    if not mutant.covered and (mutant.play or mutant.scopes or mutant.intruder or mutant.tests)
}
