"""Undoes safeties one at a time: which check notices each mutant, where, and after how long. Prints rows as they are known."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.model import run as exhaustive
from tests.rigs.undone import SIMULATED, UNDONE, by_tests
from tests.rigs.undone.mutant import Mutant, applied
from tests.simulation.plays import PLAYS
from tests.simulation.world import Run

#: The number of seeds after which a mutant counts as having survived.
SEEDS = 400


class Noticed(NamedTuple):
    """``by``: the rule that a seed broke, or the kind of check; empty: nobody. ``where``: a seed, a scope, a test."""

    by: str
    where: str
    seconds: float


def hunt(names: Sequence[str], seeds: int, jobs: int) -> int:
    """Prints a row for each of these mutants, in their order. Returns 1 if one was not noticed, else 0.

    To continue a pass that was cut short, start another pass with the names that it has not printed.
    """
    print(f"{'mutant':28}{'noticed by':36}{'where':80}{'seconds':>7}  undoes")
    found = Counter[bool]()
    with ProcessPoolExecutor(jobs) as pool:
        pending = {name: pool.submit(notice, name, seeds) for name in names}
        for name, future in pending.items():
            error = future.exception()
            noticed = future.result() if error is None else Noticed("", repr(error), 0.0)
            found[bool(noticed.by)] += 1
            by, where = noticed.by or "NOBODY", noticed.where
            print(f"{name:28}{by:36}{where:80}{noticed.seconds:7.1f}  {UNDONE[name].undoes}", flush=True)
    print(f"{found[True]} of {found.total()} mutants noticed")
    for mutant in UNDONE.values():
        if mutant.covered:
            print(f"{mutant.name}, {mutant.how}: nobody can notice it. {mutant.covered}")
    left = [mutant.name for mutant in UNDONE.values() if not mutant.covered and mutant.name not in SIMULATED]
    print(f"by real processes alone, see bin/chaos mutants: {', '.join(left)}")
    return 1 if found[False] else 0


def notice(name: str, seeds: int) -> Noticed:
    """Tries seeds and small worlds, the ones known to notice the mutant first; then an intruder and unit tests."""
    mutant, began = UNDONE[name], time.perf_counter()
    tried = [_by_seeds, _by_scopes] if mutant.seed is not None else [_by_scopes, _by_seeds]
    for attempt in (*tried, _by_tests):
        if found := attempt(mutant, seeds):
            return Noticed(*found, time.perf_counter() - began)
    return Noticed("", "", time.perf_counter() - began)


def _by_seeds(mutant: Mutant, seeds: int) -> tuple[str, str] | None:
    done = None if mutant.play is None else first_failure(mutant, range(1, seeds + 1))
    if done is None or done.violation is None:
        return None
    return done.violation.rule, f"{mutant.play}, seed {done.scenario.seed}"


def _by_scopes(mutant: Mutant, seeds: int) -> tuple[str, str] | None:
    with applied(mutant):
        found = next(filter(exhaustive.breaks, mutant.scopes), None)
    return None if found is None else ("a small world", found)


def _by_tests(mutant: Mutant, seeds: int) -> tuple[str, str] | None:
    if mutant.intruder is not None and by_tests.lets_in(mutant):
        return "the peer port", "an intruder"
    if mutant.tests and (test := by_tests.notice(mutant)):
        return "unit tests", test
    return None


def first_failure(mutant: Mutant, seeds: range) -> Run | None:
    """The run that notices the mutant, if one of these seeds does. An exception notices nothing: it is an accident."""
    assert mutant.play is not None
    play = PLAYS[mutant.play]
    with applied(mutant):
        return next((done for done in map(play.seed, seeds) if _notices(done, mutant)), None)


def _notices(done: Run, mutant: Mutant) -> bool:
    rule = done.violation and done.violation.rule
    return rule in mutant.by if mutant.by else rule not in (None, "exception")
