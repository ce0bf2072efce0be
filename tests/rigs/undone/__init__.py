"""The registry of undone safeties, by name. Each has to be noticed: one that nobody notices is a hole in the checkers.

The simulator tries those with a ``play``, the model those with ``scopes``, and the harness those with ``faults``.
"""

from tests.rigs.undone import healing, processes, rejoining, requests, rollback, settled

_MODULES = (requests, rejoining, rollback, healing, processes, settled)
UNDONE = {mutant.name: mutant for module in _MODULES for mutant in module.MUTANTS}
#: Those that the simulator can show.
SIMULATED = {name: mutant for name, mutant in UNDONE.items() if mutant.play is not None}
