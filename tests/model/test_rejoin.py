"""A lost disk, and its replacement, in every order of messages, crashes and lost answers. And each rule undone is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from quorumvault.protocol.views import View, may_enter, successor
from tests.model.rejoining import Call, RejoinWorld
from tests.model.rejoinscopes import PUT_GET, RECORD, SECOND, SMALL, THIRD, stored
from tests.model.scopes import get
from tests.model.world import Violation
from tests.simulation.patches import applied
from tests.simulation.rejoinmutants import FOR_THE_MODEL, REJOINING

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SMALL)
def test_no_state_breaks_a_rule(name: str) -> None:
    scope = SMALL[name]
    assert scope.world().explore() > scope.at_least


def test_nodes_that_learn_from_each_other_are_not_apart_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """View rule 10, by which a joining disk that dies half-way leaves two nodes in one view.

    Proves: views spread from any peer.
    """
    assert RejoinWorld([], [SECOND]).apart() == []
    monkeypatch.setattr(RejoinWorld, "_node_steps", lambda self, state: iter(()))
    assert RejoinWorld([], [SECOND]).apart()


# Each rule undone.


def beside_the_old_one() -> RejoinWorld:
    return RejoinWorld(PUT_GET, [SECOND], stragglers=False)


def two_slots() -> RejoinWorld:
    """What one disk has is seen, and has to stay so."""
    reads = [Call("get a", get()), replace(Call("get b", get()), after=0)]
    return RejoinWorld(reads, [SECOND, THIRD], stored={"n3": RECORD}, views=2, stragglers=False, losses=False)


def both_lost() -> RejoinWorld:
    return stored("n2", "n3", joiners=[SECOND, THIRD], lost=("n2", "n3"))


#: Each mutant, and a world that has to notice it.
UNDONE: dict[str, Callable[[], RejoinWorld]] = {
    "no-views": beside_the_old_one,
    "joining-votes": beside_the_old_one,
    "joins-joining": both_lost,
    "joins-apart": beside_the_old_one,
    "view-goes-back": beside_the_old_one,
    "any-view": two_slots,
    "view-in-memory": beside_the_old_one,
    "copied-before": beside_the_old_one,
    "copied-from-one": beside_the_old_one,
}
MUTANTS = {mutant.name: mutant for mutant in (*REJOINING, *FOR_THE_MODEL)}


@pytest.mark.parametrize("name", UNDONE)
def test_the_model_notices_when_a_rule_is_undone(name: str) -> None:
    with applied(MUTANTS[name]), pytest.raises(Violation):
        UNDONE[name]().explore()


def test_the_model_is_for_those_that_no_seed_notices() -> None:
    assert {mutant.name for mutant in FOR_THE_MODEL} <= UNDONE.keys()


def test_the_rule_of_one_slot_itself() -> None:
    """What the replacements above leave out. Proves: views are ordered; a view changes one slot."""
    old = View(1, b"", {"n1": b"1", "n2": b"2", "n3": b"3"})
    assert may_enter(b"1", old, successor(old, "n2", b"d"))
    assert not may_enter(b"2", old, successor(old, "n2", b"d"))
    assert not may_enter(b"1", old, successor(successor(old, "n2", b"d"), "n3", b"e"))
    assert not may_enter(b"1", successor(old, "n2", b"d"), old)
