"""Settled records in every order of messages, comparisons, crashes and views: what one disk tells alone, two hold."""

import pytest

from tests.model.settledscopes import JOINS_SMALL, SMALL

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SMALL)
def test_what_one_tells_alone_is_on_two_disks(name: str) -> None:
    scope = SMALL[name]
    world = scope.world()
    assert world.explore().states > scope.at_least
    assert world.unsettled() == []


@pytest.mark.parametrize("name", JOINS_SMALL)
def test_it_stays_so_while_a_disk_is_replaced(name: str) -> None:
    scope = JOINS_SMALL[name]
    assert scope.world().explore() > scope.at_least
