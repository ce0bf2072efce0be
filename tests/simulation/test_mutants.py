"""The checkers notice each mutant, which undoes one safety."""

import inspect
from collections.abc import Callable

import pytest

from tests.rigs.undone import SIMULATED, UNDONE, by_tests
from tests.rigs.undone.mutant import Mutant
from tests.simulation.hunting import first_failure

#: The number of seeds within which a mutant has to be noticed.
WITHIN = 60
TRIED = {name: mutant.seed for name, mutant in SIMULATED.items() if mutant.seed is not None}


@pytest.mark.parametrize("name", TRIED)
def test_the_simulator_notices_a_safety_undone(name: str) -> None:
    done = first_failure(UNDONE[name], range(TRIED[name], TRIED[name] + WITHIN))
    assert done is not None


def arguments_of(function: Callable[..., object]) -> tuple[list[None], dict[str, None]]:
    """Returns as many arguments as the function takes: by position, and by name."""
    kinds = {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
    by_name = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    return [None] * (len(kinds) - len(by_name)), dict.fromkeys(by_name)


def test_each_mutant_has_somebody_who_notices_it() -> None:
    for mutant in UNDONE.values():
        noticed = mutant.scopes or mutant.faults or mutant.intruder or mutant.tests or (mutant.play and not mutant.covered)
        assert bool(noticed) != bool(mutant.covered), mutant.name


@pytest.mark.parametrize("mutant", UNDONE.values(), ids=lambda mutant: mutant.name)
def test_what_replaces_a_function_takes_its_arguments(mutant: Mutant) -> None:
    """Otherwise checks would notice a TypeError, and not the undone safety."""
    for owner, name, replacement in mutant.patches:
        replaced = inspect.getattr_static(owner, name)
        replaced, replacement = (getattr(each, "__func__", each) for each in (replaced, replacement))  # of class methods
        if inspect.isfunction(replaced) and callable(replacement):
            by_position, by_name = arguments_of(replaced)
            inspect.signature(replacement).bind(*by_position, **by_name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, mutant in UNDONE.items() if mutant.tests])
def test_unit_tests_notice_what_no_world_comes_to(name: str) -> None:
    assert by_tests.notice(UNDONE[name])
