"""A lost disk and its replacement, in every order of messages, crashes and lost answers."""

import pytest

from quorumvault.protocol.views import View, may_enter, successor
from tests.model.rejoining import RejoinWorld
from tests.model.rejoinscopes import OTHER_SECOND, SECOND, SMALL
from tests.model.sizes import by_size

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", by_size(SMALL))
def test_no_state_breaks_a_rule(name: str) -> None:
    scope = SMALL[name]
    world = scope.world()
    assert world.explore() > scope.at_least
    assert len(world.groups) > 5


def test_nodes_that_learn_from_each_other_are_not_apart_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views spread from any peer: if a joining disk dies half-way, two nodes are left in one view."""
    assert RejoinWorld([], [SECOND]).apart() == []
    monkeypatch.setattr(RejoinWorld, "_node_steps", lambda self, state: iter(()))
    assert RejoinWorld([], [SECOND]).apart()


def test_two_that_join_at_a_time_leave_nobody_apart() -> None:
    """Two disks that want one slot. Proves: views are ordered."""
    assert RejoinWorld([], [SECOND, OTHER_SECOND], lost=("n2",), views=2, losses=False).apart() == []


def test_the_rule_of_one_slot_itself() -> None:
    """The mutants any-view and view-goes-back replace this function. Proves: views are ordered; a view changes one slot."""
    old = View(1, b"", {"n1": b"1", "n2": b"2", "n3": b"3"})
    assert may_enter(b"1", old, successor(old, "n2", b"d"))
    assert not may_enter(b"2", old, successor(old, "n2", b"d"))
    assert not may_enter(b"1", old, successor(successor(old, "n2", b"d"), "n3", b"e"))
    assert not may_enter(b"1", successor(old, "n2", b"d"), old)
