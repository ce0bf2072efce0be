"""The registry of undone safeties, by name. Each has to be noticed: one that nobody notices is a hole in the checkers.

The simulator tries those with a ``play``, the model those with ``scopes``, and the harness those with ``faults``.
"""

from tests.rigs.undone import healing, processes, rejoining, requests, rollback

UNDONE = {
    mutant.name: mutant
    for mutant in (*requests.MUTANTS, *rejoining.MUTANTS, *rollback.MUTANTS, *healing.MUTANTS, *processes.MUTANTS)
}
#: Those that the simulator can show.
SIMULATED = {name: mutant for name, mutant in UNDONE.items() if mutant.play is not None}
