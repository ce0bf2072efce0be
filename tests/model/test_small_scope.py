"""Every interleaving of a few operations on the real core keeps the rules."""

import pytest

from tests.model.run import main
from tests.model.scopes import SMALL
from tests.model.sizes import by_size
from tests.model.world import Violation
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import applied


@pytest.mark.parametrize("scope", by_size(SMALL))
def test_no_interleaving_breaks_a_rule(scope: str) -> None:
    world = SMALL[scope].world()
    assert world.explore().states > SMALL[scope].at_least
    assert world.unsettled() == []
    # Replicas take groups, and each group's outcome is also an outcome of its requests one by one.
    assert len(world.groups) > 5
    assert world.odd == []


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["put-get-get", "two-values-get", "rotate-epoch-epoch"])
def test_states_that_stand_for_others_stand_for_all_of_them(scope: str) -> None:
    world = SMALL[scope].world(renaming=False)
    every = world.explore().states
    world.rename(True)
    folded = {world.canonical(state) for state in world.visited()}
    assert len(folded) == SMALL[scope].world().explore().states < every / 3


def test_a_violation_tells_the_way_to_it() -> None:
    with applied(UNDONE["no-write-back"]), pytest.raises(Violation) as found:
        SMALL["put-get-get"].world().explore()
    broken, *steps = str(found.value).splitlines()
    assert broken == "get: not found, after it was acknowledged or seen"
    assert len(steps) == 4
    assert steps[0].startswith("  put, round 1: n")


def test_the_command_says_how_many_states_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["put-get-get", "two-writers-get"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["put-get-get", "two-writers-get"]
    assert all(" states" in line for line in told)
    assert main(["no-such-scope"]) == 2
    with applied(UNDONE["one-ack"]):
        assert main(["put-get-get"]) == 1
