"""The command line of the small worlds: bin/simulate --exhaustive [SCOPE …], or python -m tests.model.run [SCOPE …].

Explores all states of each scope, also of those that take minutes, and prints their number. Exits with 1 if a state is wrong.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial

from tests.model import damagescopes, rejoinscopes, settledscopes
from tests.model.scopes import LARGE, SMALL
from tests.model.world import Explored, Violation

WHOLE = SMALL | LARGE | settledscopes.SMALL | settledscopes.LARGE | damagescopes.SMALL | damagescopes.LARGE
#: The scopes in which a disk is lost, and another disk joins.
JOINS = rejoinscopes.SMALL | rejoinscopes.LARGE | settledscopes.JOINS_SMALL | settledscopes.JOINS_LARGE
SCOPES = (*WHOLE, *JOINS)
#: Seconds between two progress messages of a scope.
_TELL_EVERY = 10.0


def main(names: Sequence[str]) -> int:
    """``names``: the scopes to explore; none means all."""
    unknown = [name for name in names if name not in SCOPES]
    if unknown:
        print(f"no such scope: {', '.join(unknown)}; expected one of {', '.join(SCOPES)}", file=sys.stderr)
        return 2
    for name in names or SCOPES:
        began = time.perf_counter()
        try:
            found = f"{JOINS[name].world().explore():12,} states" if name in JOINS else _explore(name)
        except Violation as violation:
            print(f"{name}: {violation}")
            return 1
        print(f"{name:38}{found}{time.perf_counter() - began:9.1f} s", flush=True)
    return 0


def breaks(name: str) -> bool:
    """Whether a state of this scope is wrong."""
    try:
        (WHOLE | JOINS)[name].world().explore()
    except Violation:
        return True
    return False


def _explore(name: str) -> str:
    """The size of the world, in words."""
    world = WHOLE[name].world()
    found = world.explore(partial(_Progress(), name))
    if wrong := world.unsettled():
        raise Violation(f"{len(wrong)} requests were dropped that would have changed something later")
    return f"{found.states:12,} states{found.steps:14,} steps, depth {found.depth:2}"


class _Progress:
    """Reports progress now and then, if the error stream is a terminal."""

    def __init__(self) -> None:
        self._told = time.perf_counter()

    def __call__(self, name: str, so_far: Explored) -> None:
        if time.perf_counter() - self._told > _TELL_EVERY:
            self._told = time.perf_counter()
            print(f"{name}: {so_far.states:,} states so far, depth {so_far.depth}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
