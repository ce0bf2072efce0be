"""Settled records in every order of messages, comparisons, crashes and views."""

import pytest

from tests.model.settledscopes import JOINS_SMALL, OLD, SMALL, TOLD_NARROW, contested
from tests.model.sizes import by_size
from tests.model.world import Violation

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", by_size(SMALL))
def test_what_one_tells_alone_is_on_two_disks(name: str) -> None:
    """Proves: settled records."""
    scope = SMALL[name]
    world = scope.world()
    assert world.explore().states > scope.at_least
    assert world.unsettled() == []


@pytest.mark.parametrize("name", by_size(JOINS_SMALL))
def test_it_stays_so_while_a_disk_is_replaced(name: str) -> None:
    scope = JOINS_SMALL[name]
    assert scope.world().explore() > scope.at_least


def test_a_disk_that_was_left_behind_tells_a_value_after_a_collision() -> None:
    """The known limit of settled records: a replaced disk may not have heard of a collision. Only this world allows for that."""
    with pytest.raises(Violation, match="read: not a collision any more"):
        contested(OLD, TOLD_NARROW).explore()


@pytest.mark.parametrize("name", ["settled-no-room", "settled-put-again-rotate"])
def test_states_that_stand_for_others_stand_for_all_of_them(name: str) -> None:
    """The node whose knowledge is followed keeps its name, so each state stands for at most two."""
    world = SMALL[name].world(renaming=False)
    every = world.explore().states
    world.rename(True)
    folded = {world.canonical(state) for state in world.visited()}
    assert len(folded) == SMALL[name].world().explore().states < every / 1.5
