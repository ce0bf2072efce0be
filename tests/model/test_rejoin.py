"""A lost disk, and its replacement, in every order of messages, crashes and lost answers. And each rule undone is noticed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from quorumvault import replica as replicas
from quorumvault.model import Version
from quorumvault.protocol import joining, messages, records
from quorumvault.protocol.joining import Activate, Ask, Enter, Joining, Wait
from quorumvault.protocol.views import Mode, View, may_enter
from quorumvault.replica import Replica
from quorumvault.storage import layout
from tests.model.rejoining import Call, Joiner, RejoinWorld
from tests.model.scopes import OWNER, VALUE, digest_of, get, put, rotate
from tests.model.world import KEYRING, NODES, Owed, Violation

SECOND, OTHER_SECOND, THIRD = Joiner("n2", b"d" * 16), Joiner("n2", b"e" * 16), Joiner("n3", b"f" * 16)
(SEALED,) = KEYRING.epoch_keys(OWNER, 1).sealer.seal([VALUE], [digest_of(VALUE)])
PUT_GET = [Call("put", put()), replace(Call("get", get()), after=0)]
ROTATE_PUT = [Call("rotate", rotate()), replace(Call("put", put()), after=0)]
#: Two of three disks have it: it was acknowledged.
RECORD = {
    layout.record_keys(OWNER.id, [1], [digest_of(VALUE)])[0]: records.header(Version(1, 1)) + SEALED,
    layout.register_key(OWNER.id): layout.encode_register(1, KEYRING.secret_id),
}
ACKNOWLEDGED = Owed(frozenset({SEALED}))


def stored(*nodes: str, joiners: list[Joiner], lost: tuple[str, ...] = (), views: int = 2) -> RejoinWorld:
    """A record that these nodes' old disks have is read while disks join."""
    holders = dict.fromkeys(nodes, RECORD)
    return RejoinWorld([Call("get", get())], joiners, stored=holders, owed=ACKNOWLEDGED, lost=lost, views=views)


def names(scope: list[Call]) -> str:
    return ", ".join(operation.name for operation in scope)


PAIRS = pytest.mark.parametrize("holders", [("n1", "n2"), ("n2", "n3"), ("n1", "n3")], ids=" ".join)


@pytest.mark.parametrize("scope", [PUT_GET, ROTATE_PUT], ids=names)
def test_a_disk_joins_while_the_old_one_lives_on(scope: list[Call]) -> None:
    assert RejoinWorld(scope, [SECOND], stragglers=False).explore() > 40_000


def test_a_disk_joins_and_late_messages_meet_a_new_view() -> None:
    assert RejoinWorld(PUT_GET, [SECOND]).explore() > 100_000


def test_a_disk_is_copied_piece_by_piece() -> None:
    assert RejoinWorld(PUT_GET, [SECOND], stragglers=False, copy_bytes=1).explore() > 70_000


@PAIRS
def test_two_disks_join_and_one_of_the_old_is_lost(holders: tuple[str, ...]) -> None:
    assert stored(*holders, joiners=[SECOND, THIRD], lost=("n3",), views=3).explore() > 10_000


def test_two_disks_join_while_the_old_ones_live_on() -> None:
    assert stored("n1", "n2", joiners=[SECOND, THIRD]).explore() > 100_000


def test_two_disks_want_one_slot() -> None:
    assert stored("n1", "n2", joiners=[SECOND, OTHER_SECOND], lost=("n2",)).explore() > 100_000


@PAIRS
def test_with_two_disks_lost_nothing_goes_on(holders: tuple[str, ...]) -> None:
    """Rule 14: one that holds what was acknowledged is left, or none; "not found" is never said."""
    assert stored(*holders, joiners=[SECOND, THIRD], lost=("n2", "n3")).explore() > 100


def test_nodes_that_learn_from_each_other_are_not_apart_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """View rule 10, by which a joining disk that dies half-way leaves two nodes in one view."""
    assert RejoinWorld([], [SECOND]).apart() == []
    monkeypatch.setattr(RejoinWorld, "_node_steps", lambda self, state: iter(()))
    assert RejoinWorld([], [SECOND]).apart()


# Each rule undone.


def _joining_votes(disk: bytes, mode: Mode, view: View | None) -> bool:
    return view is not None and view.lists(disk)


def _goes_back(disk: bytes, current: View, proposed: View) -> bool:
    return proposed.id != current.id and proposed.lists(disk)


def _any_larger_view(disk: bytes, current: View, proposed: View) -> bool:
    return proposed.id > current.id and proposed.lists(disk)


_real_become = Replica._become


def _entered_in_memory(self: Replica, identity: Any) -> None:
    if identity.mode is Mode.JOINING or self.identity.mode is Mode.JOINING:
        _real_become(self, identity)
        return
    keep, self._keep = self._keep, lambda identity: None
    _real_become(self, identity)
    self._keep = keep


_real_copy_in = joining._copy


def _one_copy(view: View, others: tuple[str, ...], copies: Any) -> Generator[Any, Any, Any]:
    return (yield from _real_copy_in(view, others[:1], copies))


def _copy_first(node: str, disk: bytes, entered: View | None) -> Joining:
    """Copies in the old view, and proposes the new one when it is done."""
    others = tuple(name for name in NODES if name != node)
    copies = joining._Copies(joining.NO_VIEW)
    while True:
        told = yield Ask(others, lambda round_id: messages.AskView(round_id, joining.NO_VIEW))
        turn = joining._next_turn(node, disk, entered, others, told)
        hindrance: Wait | None = turn if isinstance(turn, Wait) else None
        if isinstance(turn, joining._CopyIn):
            yield Enter(turn.view)
            yield Activate(turn.view, turn.marks)
            return turn.view
        if isinstance(turn, joining._Propose):
            if turn.view.joiner == disk and turn.nodes == others:
                views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current]
                hindrance = yield from joining._copy(views[0], others, copies)
            hindrance = hindrance or (yield from joining._propose(turn, disk))
        if hindrance is not None:
            yield hindrance


_real_copy = Replica._copy


def _copy_in_any_view(self: Replica, copy: messages.Copy) -> Any:
    view = self.identity.view
    if view is None or not self._votes:
        return _real_copy(self, copy)
    answer = _real_copy(self, messages.Copy(copy.round, view.id, copy.after))
    return messages.Copied(copy.round, copy.view, answer.disk, answer.keys, answer.values, answer.last)


_real_next_turn = joining._next_turn


def _one_is_enough(node: str, disk: bytes, entered: View | None, others: tuple[str, ...], told: Any) -> Any:
    """Goes on when the newest view that it hears of has this disk, whoever else is in it."""
    views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current is not None]
    newest = max(views, key=lambda view: view.id, default=None)
    if newest is not None and newest.disks[node] == disk:
        return joining._CopyIn(newest, {})
    return _real_next_turn(node, disk, entered, others, told)


def _whatever_they_are(node: str, disk: bytes, entered: View | None, others: tuple[str, ...], told: Any) -> Any:
    """Takes a joining disk for an active one."""
    views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current is not None]
    if len(told) < len(others) or not views:
        return Wait("they do not answer")
    newest = max(views, key=lambda view: view.id)
    return joining._CopyIn(newest, {}) if newest.lists(disk) else joining._Propose(joining.successor(newest, node, disk), others)


def _whoever_enters(turn: Any, disk: bytes) -> Generator[Any, Any, Any]:
    yield Ask(turn.nodes, lambda round_id: messages.ProposeView(round_id, joining.NO_VIEW, turn.view))


def _whoever_answers(view: View, others: tuple[str, ...], copies: Any) -> Generator[Any, Any, Any]:
    for source in others:
        yield from _real_copy_in(view, (source,), copies)
    return None if copies.done else Wait("nobody gave anything")


def beside_the_old_one() -> RejoinWorld:
    return RejoinWorld(PUT_GET, [SECOND], stragglers=False)


def two_slots() -> RejoinWorld:
    """What one disk has is seen, and has to stay so."""
    reads = [Call("get a", get()), replace(Call("get b", get()), after=0)]
    return RejoinWorld(reads, [SECOND, THIRD], stored={"n3": RECORD}, views=2, stragglers=False, losses=False)


def both_lost() -> RejoinWorld:
    return stored("n2", "n3", joiners=[SECOND, THIRD], lost=("n2", "n3"))


#: What is undone, by which replacements, and a world that has to notice.
UNDONE: dict[str, tuple[list[tuple[object, str, object]], Any]] = {
    "a joining disk does not vote (4)": ([(replicas, "votes", _joining_votes)], beside_the_old_one),
    "both others are active (7)": (
        [
            (joining, "_next_turn", _whatever_they_are),
            (joining, "_propose", _whoever_enters),
            (joining, "_copy", _whoever_answers),
        ],
        both_lost,
    ),
    "both others are in one view (7)": (
        [(joining, "_next_turn", _one_is_enough), (Replica, "_copy", _copy_in_any_view)],
        beside_the_old_one,
    ),
    "nobody goes back (9)": ([(replicas, "may_enter", _goes_back)], beside_the_old_one),
    "one slot at a time (9)": ([(replicas, "may_enter", _any_larger_view)], two_slots),
    "a view is synced before the answer (9)": ([(Replica, "_become", _entered_in_memory)], beside_the_old_one),
    "the copy is made after the entry (11)": ([(joining, "join", _copy_first)], beside_the_old_one),
    "copied from both, and active after that (11, 12)": ([(joining, "_copy", _one_copy)], beside_the_old_one),
}


@pytest.mark.parametrize("rule", UNDONE)
def test_the_model_notices_when_a_rule_is_undone(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replacements, world = UNDONE[rule]
    for owner, name, replacement in replacements:
        monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(Violation):
        world().explore()


def test_the_rule_of_one_slot_itself() -> None:
    """What the replacements above leave out."""
    old = View(1, b"", {"n1": b"1", "n2": b"2", "n3": b"3"})
    assert may_enter(b"1", old, joining.successor(old, "n2", b"d"))
    assert not may_enter(b"2", old, joining.successor(old, "n2", b"d"))
    assert not may_enter(b"1", old, joining.successor(joining.successor(old, "n2", b"d"), "n3", b"e"))
    assert not may_enter(b"1", joining.successor(old, "n2", b"d"), old)
