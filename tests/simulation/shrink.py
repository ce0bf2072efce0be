"""Shrinks a failing run: turns knobs back and leaves out faults and calls, as long as the run still fails.

Leaving something out shifts what chance gives to the rest, so that the smaller run is a different run; what counts is that it
breaks the same rule.
"""

from collections.abc import Callable
from dataclasses import replace

from tests.rigs.reduced import reduced
from tests.simulation.clients import Call
from tests.simulation.knobs import USUAL
from tests.simulation.world import Run, Scenario, run

#: The most runs to spend on shrinking.
RUNS = 250


def shrink(failed: Run, again: Callable[[Scenario], Run] = run, runs: int = RUNS) -> Run:
    """Returns the smallest run found that breaks the rule that ``failed`` breaks. ``again``: how to run a scenario."""
    best, before, left = failed, None, runs

    def still_fails(smaller: Scenario) -> bool:
        nonlocal best, left
        left -= 1
        done = again(smaller)
        if done.violation is None or failed.violation is None or done.violation.rule != failed.violation.rule:
            return False
        best = done
        return True

    still_fails(replace(failed.scenario, knobs=USUAL))
    while before is not best and left:
        before = best
        reduced(best.scenario.faults, lambda kept: still_fails(replace(best.scenario, faults=kept)), left)
        calls = tuple((client, call) for client, calls in enumerate(best.scenario.calls) for call in calls)
        reduced(calls, lambda kept: still_fails(_with_calls(best.scenario, kept)), left)
    return best


def _with_calls(chosen: Scenario, kept: tuple[tuple[int, Call], ...]) -> Scenario:
    clients = range(len(chosen.calls))
    return replace(chosen, calls=tuple(tuple(call for of, call in kept if of == client) for client in clients))
