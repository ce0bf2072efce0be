"""The registry of undone safeties, by name. Each has to be noticed: one that nobody notices is a hole in the checkers.

The simulator tries those with a ``play``, the model those with ``scopes``, the harness those with ``faults``, and the tests of
the peer port those with an ``intruder``.
"""

from tests.rigs.undone import certificates, groups, healing, processes, rejoining, requests, revocations, rollback, settled

_MODULES = (requests, groups, rejoining, rollback, healing, processes, settled, certificates, revocations)
UNDONE = {mutant.name: mutant for module in _MODULES for mutant in module.MUTANTS}
#: Those that the simulator can show.
SIMULATED = {name: mutant for name, mutant in UNDONE.items() if mutant.play is not None}
