"""A run that fails, made smaller: faults and calls are left out, ever smaller parts of them, as long as it still fails.

This is delta debugging (Zeller and Hildebrandt 2002). What is left out shifts what chance gives to the rest, so that the smaller
run is another run; what counts is that it breaks the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.simulation.clients import Call
from tests.simulation.world import Run, Scenario, run

PartT = TypeVar("PartT")
#: Runs that may be spent on it.
RUNS = 250


def shrink(failed: Run, again: Callable[[Scenario], Run] = run, runs: int = RUNS) -> Run:
    """The smallest run that was found to break the rule that ``failed`` breaks. ``again``: how it was run."""
    return _Shrinking(failed, again, runs).best


class _Shrinking:
    def __init__(self, failed: Run, again: Callable[[Scenario], Run], runs: int) -> None:
        self.best = failed
        self._run = again
        self._rule = failed.violation.rule if failed.violation else ""
        self._left = runs
        before = None
        while before is not self.best and self._left:
            before = self.best
            faults = self.best.scenario.faults
            self._reduce(faults, lambda kept: replace(self.best.scenario, faults=tuple(kept)))
            calls = [(client, call) for client, calls in enumerate(self.best.scenario.calls) for call in calls]
            self._reduce(calls, self._with_calls)

    def _with_calls(self, kept: Sequence[tuple[int, Call]]) -> Scenario:
        clients = range(len(self.best.scenario.calls))
        calls = tuple(tuple(call for of, call in kept if of == client) for client in clients)
        return replace(self.best.scenario, calls=calls)

    def _reduce(self, parts: Sequence[PartT], made: Callable[[Sequence[PartT]], Scenario]) -> None:
        size = max(1, len(parts) // 2)
        while parts and self._left:
            start = 0
            while start < len(parts) and self._left:
                kept = [*parts[:start], *parts[start + size :]]
                if self._still_fails(made(kept)):
                    parts = kept
                else:
                    start += size
            if size == 1:
                return
            size //= 2

    def _still_fails(self, smaller: Scenario) -> bool:
        self._left -= 1
        done = self._run(smaller)
        if done.violation is None or done.violation.rule != self._rule:
            return False
        self.best = done
        return True
