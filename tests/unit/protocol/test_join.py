"""Joining, step by step: what it asks, what it waits for, where it resumes, and when it gives up."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from quorumvault.protocol.donors import Donor
from quorumvault.protocol.join import DONOR, Activate, Ask, Displaced, Enter, Merge, Prepare, Step, Survey, Unread, Wait, join
from quorumvault.protocol.messages import AskView, Copied, Copy, NotCopied, OtherView, ProposeView, RoundId, ViewIs
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import NO_VIEW, Mode, View, first_view, successor

DISKS = {node: node.encode() * 8 for node in ("n1", "n2", "n3")}
OLD = first_view(DISKS)
FRESH = b"d" * 16
NEW = successor(OLD, "n2", FRESH)
ROUND = RoundId(b"", b"", 0)
WHOLE = {"n1": Unread(), "n3": Unread()}
MARKS = {"n1": Mark(1, 100), "n2": Mark(2, 200), "n3": Mark(3, 300)}


def stands(node: str, view: View | None = OLD, mode: Mode = Mode.ACTIVE, disk: bytes | None = None) -> ViewIs:
    return ViewIs(ROUND, NO_VIEW, disk or DISKS[node], mode, view, MARKS[node])


def both(view: View = OLD) -> dict[str, ViewIs]:
    return {"n1": stands("n1", view), "n3": stands("n3", view)}


def piece(node: str, keys: list[bytes], *, last: bool) -> dict[str, Copied]:
    return {node: Copied(ROUND, NEW.id, DISKS[node], keys, [b""] * len(keys), last)}


class Script:
    """A join to which a test passes what it hears. ``step`` is the current step."""

    def __init__(self, entered: View | None = None, donor: Donor | None = None) -> None:
        self._steps = join("n2", FRESH, entered, donor)
        self.step: Step = next(self._steps)

    def hears(self, *told: Any) -> Step:
        """Pass on each of ``told`` in turn, or one empty answer if there are none. Return the step that follows."""
        for each in told or ({},):
            self.step = self._steps.send(each)
        return self.step

    def asks(self, kind: type, *nodes: str) -> Any:
        """The request of the current step, which must be of this kind and go to these nodes."""
        assert isinstance(self.step, Ask)
        assert self.step.nodes == nodes
        request = self.step.request.sent_in(ROUND, self.step.request.view)
        assert isinstance(request, kind)
        return request

    def copying(self, told: dict[str, ViewIs] | None = None) -> Script:
        """Advance to the first piece of n1."""
        assert self.hears(told or both(NEW)) == Enter(NEW)
        self.hears()
        return self


def test_the_whole_way() -> None:
    """Proves: a joiner proposes the next view; active after both copies."""
    joining = Script()
    joining.asks(AskView, "n1", "n3")
    assert joining.hears(both()) == Survey(("n1", "n3"), OLD)
    assert joining.hears(WHOLE) == Prepare()
    joining.hears()
    assert joining.asks(ProposeView, "n1", "n3").proposed == NEW
    joining.hears(both(NEW))
    joining.asks(AskView, "n1", "n3")
    assert joining.hears(both(NEW)) == Enter(NEW)
    joining.hears()
    assert joining.asks(Copy, "n1").after == b""
    assert joining.hears(piece("n1", [b"r1", b"r2"], last=False)) == Merge("n1", [b"r1", b"r2"], [b"", b""])
    joining.hears()
    assert joining.asks(Copy, "n1").after == b"r2"
    joining.hears(piece("n1", [], last=True), {})
    assert joining.asks(Copy, "n3").view == NEW.id
    assert joining.hears(piece("n3", [b"r1"], last=True), {}) == Activate(
        NEW, {DISKS["n1"]: MARKS["n1"], DISKS["n3"]: MARKS["n3"]}
    )
    with pytest.raises(StopIteration) as end:
        joining.hears()
    assert end.value.value == NEW


@pytest.mark.parametrize(
    ("told", "who"),
    [
        ({}, "n1"),
        ({"n1": stands("n1")}, "n3"),
        ({"n1": stands("n1", mode=Mode.JOINING), "n3": stands("n3")}, "n1"),
        ({"n1": stands("n1"), "n3": stands("n3", None, Mode.JOINING)}, "n3"),
        ({"n1": stands("n1"), "n3": stands("n3", disk=b"?" * 16)}, "n3"),
        ({"n1": stands("n1"), "n3": OtherView(ROUND, NO_VIEW, DISKS["n3"], OLD)}, "n3"),
    ],
)
def test_it_waits_for_both_others_to_be_active_and_listed(told: dict[str, Any], who: str) -> None:
    """Proves: join from two active disks of one view."""
    joining = Script()
    step = joining.hears(told)
    assert isinstance(step, Wait)
    assert step.why.startswith(who)
    joining.hears()
    joining.asks(AskView, "n1", "n3")


def test_one_that_is_behind_is_told_of_the_newer_view_and_asked_again() -> None:
    joining = Script()
    assert joining.hears({"n1": stands("n1", NEW), "n3": stands("n3")}) == Prepare()
    joining.hears()
    assert joining.asks(ProposeView, "n3").proposed == NEW
    joining.hears({"n3": stands("n3", NEW)})
    joining.asks(AskView, "n1", "n3")


def test_a_view_that_was_not_entered_by_both_is_no_reason_to_copy() -> None:
    """Proves: copy after the entry, from both."""
    behind = {"n1": stands("n1", NEW), "n3": stands("n3")}
    assert Script().hears(both(), WHOLE, {}, behind) == Wait("n3 has not entered view 2")


def test_a_copy_that_was_interrupted_goes_on_behind_its_last_key() -> None:
    joining = Script().copying()
    pieces = piece("n1", [b"r1"], last=True), piece("n3", [b"r1", b"r5"], last=False)
    assert joining.hears(pieces[0], {}, pieces[1], {}, {}) == Wait("n3 does not go on with the copy")
    joining.hears({}, both(NEW))
    assert joining.asks(Copy, "n3").after == b"r5"


def test_what_a_source_cannot_read_is_waited_for() -> None:
    """An older node does not say where a copy could resume."""
    joining = Script().copying()
    step = joining.hears({"n1": NotCopied(ROUND, NEW.id, DISKS["n1"])})
    assert isinstance(step, Wait)
    assert step.why == "n1 cannot read all of its store"
    assert "n2's old disk and nowhere else. Stop all nodes" in str(step.advice)


def lacks(*parts: bytes) -> Unread:
    return Unread(frozenset(parts))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"n1": Unread()}, "n3 does not answer"),
        ({"n1": Unread(), "n3": OtherView(ROUND, NO_VIEW, DISKS["n3"], NEW)}, "n3 does not answer"),
        ({"n1": lacks(b"r\0\1"), "n3": Unread()}, "n1 cannot read all of its store"),
        ({"n1": Unread(), "n3": lacks(b"r\0\1")}, "n3 cannot read all of its store"),
        ({"n1": NotCopied(ROUND, OLD.id, DISKS["n1"]), "n3": Unread()}, "n1 cannot read all of its store"),
    ],
)
def test_a_view_is_left_only_when_both_others_have_read_all_of_their_stores(told: dict[str, Any], why: str) -> None:
    """The old disk still counts, and may have what the others cannot read. Proves: read before the view changes."""
    joining = Script()
    joining.hears(both())
    step = joining.hears(told)
    assert isinstance(step, Wait)
    assert step.why == why
    assert (step.advice is None) == ("answer" in why)
    joining.hears()
    joining.asks(AskView, "n1", "n3")


OLD_DISK = Donor("n2", DISKS["n2"], OLD, MARKS["n2"])


def reminded(view: View, mark: Mark = MARKS["n2"]) -> dict[str, ViewIs]:
    return {node: structs.replace(told, remembered={DISKS["n2"]: mark}) for node, told in both(view).items()}


@pytest.mark.parametrize(
    ("of_the_old", "goes_on"),
    [(Unread(), True), (lacks(b"r\0\2"), True), (lacks(b"r\0\1"), False), (NotCopied(ROUND, OLD.id, DISKS["n2"]), False)],
)
def test_a_disk_at_hand_stands_in_for_the_parts_that_one_of_the_others_cannot_read(of_the_old: Any, goes_on: bool) -> None:
    """Two of three disks must be able to read each part. Proves: donors have no voice."""
    joining = Script(donor=OLD_DISK)
    joining.hears(reminded(OLD))
    assert joining.hears({"n1": lacks(b"r\0\1"), "n3": lacks(b"r\0\2")} | {}) == Survey((DONOR,), OLD)
    step = joining.hears({DONOR: of_the_old})
    assert isinstance(step, Prepare if goes_on and of_the_old == Unread() else Wait)


def test_one_that_forgot_something_does_not_stand_in() -> None:
    joining = Script(donor=OLD_DISK)
    joining.hears(reminded(OLD, Mark(2, 201)))
    assert isinstance(joining.hears({"n1": lacks(b"r\0\1"), "n3": Unread()}), Wait)


@pytest.mark.parametrize(
    ("donor", "view", "advice"),
    [
        # n3 was replaced while the old disk was away: the old disk is listed, but would not count in the next view.
        (OLD_DISK, successor(OLD, "n3", b"f" * 16), "still counts"),
        # Another new disk was given the slot, and may have voted.
        (OLD_DISK, successor(OLD, "n2", b"e" * 16), "quorumvault recover DIR"),
    ],
)
def test_a_disk_that_would_not_stand_in_any_more_in_the_next_view_is_not_counted_on(
    donor: Donor, view: View, advice: str
) -> None:
    """Otherwise the view would be left for good, with no source to copy from. Proves: read before the view changes."""
    joining = Script(donor=donor)
    told = reminded(view)
    told["n3"] = structs.replace(told["n3"], disk=view.disks["n3"])
    joining.hears(told)
    step = joining.hears({"n1": lacks(b"r\0\1"), "n3": Unread()})
    assert isinstance(step, Wait)
    assert advice in str(step.advice)


def gap(node: str, after: bytes, end: bytes) -> dict[str, NotCopied]:
    return {node: NotCopied(ROUND, NEW.id, DISKS[node], after, end)}


def from_the_old(keys: list[bytes], *, last: bool) -> dict[str, Copied]:
    return {DONOR: Copied(ROUND, NEW.id, DISKS["n2"], keys, [b""] * len(keys), last)}


def test_what_a_source_cannot_read_is_copied_from_the_old_disk_and_the_copy_goes_on_behind_it() -> None:
    joining = Script(donor=OLD_DISK).copying(reminded(NEW))
    joining.hears(gap("n1", b"r\0\1", b"r\0\2"))
    assert joining.asks(Copy, DONOR).after == b"r\0\1"
    assert joining.hears(from_the_old([b"r\0\1a"], last=False)) == Merge(DONOR, [b"r\0\1a"], [b""])
    joining.hears()
    assert joining.asks(Copy, DONOR).after == b"r\0\1a"
    assert joining.hears(from_the_old([b"r\0\1b", b"r\0\2a"], last=False)) == Merge(DONOR, [b"r\0\1b"], [b""])
    joining.hears()
    assert joining.asks(Copy, "n1").after == b"r\0\2"
    joining.hears(piece("n1", [], last=True), {})
    joining.hears(gap("n3", b"r\0\1", b"r\0\2"))  # two of three cannot read this part
    assert isinstance(joining.step, Wait)


@pytest.mark.parametrize("told", [{}, {DONOR: NotCopied(ROUND, NEW.id, DISKS["n2"], b"r\0\1", b"r\0\2")}])
def test_what_the_old_disk_cannot_read_either_is_waited_for(told: dict[str, Any]) -> None:
    joining = Script(donor=OLD_DISK).copying(reminded(NEW))
    joining.hears(gap("n1", b"r\0\1", b"r\0\2"))
    assert isinstance(joining.hears(told), Wait)


@pytest.mark.parametrize("end", [b"", b"r\0\1"])
def test_a_source_that_does_not_get_on_is_waited_for(end: bytes) -> None:
    joining = Script(donor=OLD_DISK).copying(reminded(NEW))
    joining.hears(piece("n1", [b"r\0\1a"], last=False), {})
    assert isinstance(joining.hears(gap("n1", b"r\0\1a", end)), Wait)


def test_a_piece_of_another_disk_or_view_is_none() -> None:
    for stranger in (Copied(ROUND, NEW.id, b"?" * 16, [], [], True), Copied(ROUND, OLD.id, DISKS["n1"], [], [], True)):
        joining = Script().copying()
        assert isinstance(joining.hears({"n1": stranger}), Wait)


def test_a_view_that_came_in_between_begins_the_copies_anew() -> None:
    joining = Script().copying()
    assert isinstance(joining.hears(piece("n1", [b"r1"], last=True), {}, {}), Wait)  # n3 does not answer
    later = View(7, FRESH, NEW.disks)
    assert joining.hears({}, both(later)) == Enter(later)
    joining.hears()
    assert joining.asks(Copy, "n1").after == b""


def test_a_disk_that_had_entered_a_view_gives_up_its_slot_to_a_newer_one() -> None:
    joining = Script(entered=NEW)
    with pytest.raises(Displaced) as displaced:
        joining.hears(both(successor(NEW, "n2", b"e" * 16)))
    assert displaced.value.view.number == 3


def test_a_disk_that_had_entered_none_takes_the_slot() -> None:
    joining = Script()
    joining.hears(both(successor(OLD, "n2", b"e" * 16)), WHOLE, {})
    assert joining.asks(ProposeView, "n1", "n3").proposed.number == 3
