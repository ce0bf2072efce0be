"""Rules of views and of rejoining, undone one at a time."""

import operator
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from msgspec import structs

from quorumvault.model import NODE_NAMES
from quorumvault.protocol import join, messages
from quorumvault.protocol.join import Activate, Ask, Enter, Joining, Wait
from quorumvault.protocol.views import NO_VIEW, Mode, View, successor
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.node import membership
from quorumvault.server.node.membership import Membership
from quorumvault.server.replica import copy
from quorumvault.server.replica import replica as replicas
from quorumvault.server.replica.replica import OwnWork, Replica
from tests.rigs.undone.mutant import LOST_DISKS, Mutant, Patch
from tests.rigs.undone.rollback import NO_MARKS
from tests.simulation.disks import Disk
from tests.simulation.nodes import Node

_real_handle = Replica._handle
_real_become = Replica._become
_real_copy_in = join._copy
_real_copy = Replica._copy
_real_next_turn = join._next_turn
_real_standing_in = join._standing_in


def _in_any_view(self: Replica, request: messages.AnyRequest | OwnWork, staged: dict[bytes, bytes]) -> Any:
    """Replaces this disk's view by the view that the request names."""
    mine, view = self._identity, self._identity.view
    if view is None or isinstance(request, OwnWork):
        return _real_handle(self, request, staged)
    number, joiner = request.view
    self._identity = replace(mine, view=structs.replace(view, number=number, joiner=joiner))
    try:
        return _real_handle(self, request, staged)
    finally:
        self._identity = mine


def _same_disk(self: Node, disk: bytes) -> None:
    """The store is lost, but its identity stays."""
    self.crash()
    self.disk = Disk(self.identity)


def _entering(may: Callable[[Any, Any], bool]) -> tuple[Patch, ...]:
    """A disk enters each view that lists it, if ``may`` holds for the ids of that view and of its own."""

    def may_enter(disk: bytes, current: View, proposed: View) -> bool:
        return may(proposed.id, current.id) and proposed.lists(disk)

    return (replicas, "may_enter", may_enter), (membership, "may_enter", may_enter)


def _entered_in_memory(self: Replica, identity: Any) -> bool:
    if identity.mode is Mode.JOINING or self.identity.mode is Mode.JOINING:
        return _real_become(self, identity)
    keep, self._keep = self._keep, lambda identity: None
    done = _real_become(self, identity)
    self._keep = keep
    return done


def _copy_first(node: str, disk: bytes, entered: View | None, donor: Any = None) -> Joining:
    """Copies in the old view, and proposes the new view after that."""
    others = tuple(name for name in NODE_NAMES if name != node)
    copies = join._Copies(NO_VIEW)
    while True:
        told = yield Ask(others, messages.AskView(*messages.UNSENT))
        turn = join._next_turn(node, disk, entered, others, told)
        hindrance: Wait | None = turn if isinstance(turn, Wait) else None
        if isinstance(turn, join._CopyIn):
            yield Enter(turn.view)
            yield Activate(turn.view, turn.marks)
            return turn.view
        if isinstance(turn, join._Propose):
            if turn.view.joiner == disk and turn.nodes == others:
                views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current]
                yield join.Prepare()
                hindrance = yield from join._copy(views[0], others, copies)
            hindrance = hindrance or (yield from join._propose(turn, disk))
        if hindrance is not None:
            yield hindrance


def _copy_in_any_view(self: Replica, copy: messages.Copy) -> Any:
    view = self.identity.view
    if view is None or not self._votes:
        return _real_copy(self, copy)
    answer = _real_copy(self, messages.Copy(copy.round, view.id, copy.after))
    assert isinstance(answer, messages.Copied)
    return messages.Copied(copy.round, copy.view, answer.disk, answer.keys, answer.values, answer.last)


def _one_is_enough(node: str, disk: bytes, entered: View | None, others: tuple[str, ...], told: Any) -> Any:
    """Goes on if the newest view that it hears of lists this disk, whatever view the others are in."""
    views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current is not None]
    newest = max(views, key=lambda view: view.id, default=None)
    if newest is not None and newest.disks[node] == disk:
        return join._CopyIn(newest, {})
    return _real_next_turn(node, disk, entered, others, told)


def _whatever_they_are(node: str, disk: bytes, entered: View | None, others: tuple[str, ...], told: Any) -> Any:
    """Treats a joining disk as an active one."""
    views = [reply.current for reply in told.values() if isinstance(reply, messages.ViewIs) and reply.current is not None]
    if len(told) < len(others) or not views:
        return Wait("they do not answer")
    newest = max(views, key=lambda view: view.id)
    return join._CopyIn(newest, {}) if newest.lists(disk) else join._Propose(successor(newest, node, disk), others)


def _whoever_enters(turn: Any, disk: bytes) -> Generator[Any, Any, Any]:
    yield Ask(turn.nodes, messages.ProposeView(*messages.UNSENT, turn.view))


def _whoever_answers(view: View, others: tuple[str, ...], copies: Any, donor: Any = None) -> Generator[Any, Any, Any]:
    for source in others:
        yield from _real_copy_in(view, (source,), copies)
    return None if copies.done else Wait("nobody gave anything")


def _left_at_once(*_: Any) -> Generator[Any, Any, None]:
    """Skips the survey of which stores can be read."""
    yield from ()


def _nothing_borrowed(*_: Any) -> Generator[Any, Any, bool]:
    """Skips what a source cannot read."""
    yield from ()
    return True


def _as_in_the_view_before(donor: Any, view: View, told: Any) -> str | None:
    """Lets the donor stand in if it does so in any of the views that the others are in."""
    return next((found for reply in told.values() if (found := _real_standing_in(donor, reply.current, told))), None)


async def _never_again(self: Rejoin, node: str) -> tuple[bytes, int]:
    return b"", 0


_SURVEY = "tests/unit/server/healing/test_survey.py::"
_JOIN = "tests/unit/protocol/test_join.py::"

MUTANTS = (
    Mutant("left-unread", ("read before the view changes",), "no store is asked whether it can be read",
           ((join, "_survey", _left_at_once),), scopes=("join-damaged-survivor",)),
    Mutant("borrows-nothing", ("donors have no voice",), "records that a source cannot read are skipped",
           ((join, "_borrow", _nothing_borrowed),), scopes=("join-from-old-disk",)),
    Mutant("older-copy-stands-in", ("donors have no voice",), "any old disk is accepted as a donor",
           ((join, "stands_in", lambda donor, view, remembered: True),), scopes=("join-from-older-copy",)),
    Mutant("donor-spent", ("read before the view changes",), "a donor counts that would not count in the next view",
           ((join, "_standing_in", _as_in_the_view_before),),
           tests=(_JOIN + "test_a_disk_that_would_not_stand_in_any_more_in_the_next_view_is_not_counted_on",)),
    Mutant("survey-kept", ("read before the view changes",), "a survey of a disk still counts after the disk's next start",
           ((Rejoin, "_start_of", _never_again),),
           tests=(_SURVEY + "test_a_store_is_read_anew_after_a_start",)),
    # Rollback marks would detect such a disk before it votes, so they are undone as well.
    Mutant("old-disk-id", ("a lost disk gets a new identity", "rollback marks"), "a new disk keeps the old id",
           ((Node, "lose_disk", _same_disk), NO_MARKS), LOST_DISKS, seed=1),
    Mutant("joining-votes", ("only active listed disks vote",), "a joining disk votes too",
           ((replicas, "votes", lambda disk, mode, view: view is not None and view.lists(disk)),), LOST_DISKS, seed=12,
           scopes=("join-beside-put-get",), faults=("crash-in-view-change",)),
    Mutant("joins-joining", ("join from two active disks of one view",), "a disk joins from joining disks",
           ((join, "_next_turn", _whatever_they_are), (join, "_propose", _whoever_enters), (join, "_copy", _whoever_answers)),
           LOST_DISKS, seed=15, scopes=("both-lost-on-n2-n3",)),
    Mutant("view-in-memory", ("view and mode are durable",), "a view is only in memory",
           ((Replica, "_become", _entered_in_memory),), LOST_DISKS, seed=1,
           scopes=("join-beside-put-get",), faults=("disks-in-turn", "kill-all")),
    Mutant("views-not-learned", ("views spread from any peer",), "no node learns a view from a peer",
           ((Membership, "heard", lambda self, facts: self.callbacks.learn(facts.view)),), LOST_DISKS, seed=7),
    Mutant("copied-before", ("copy after the entry, from both",), "the copy is made before the entry",
           ((join, "join", _copy_first),), LOST_DISKS, seed=88, scopes=("join-beside-put-get",)),
    Mutant("copied-from-one", ("copy after the entry, from both",), "the copy is made from one disk",
           ((join, "_copy", lambda view, others, copies, donor=None: _real_copy_in(view, others[:1], copies)),),
           LOST_DISKS, seed=1, scopes=("join-beside-put-get",)),
    Mutant("registers-by-choice", ("copy after the entry, from both",), "a smaller register stays",
           ((copy, "merge_values", lambda keyring, owner_of, key, mine, theirs: mine),), LOST_DISKS, seed=28),
    Mutant("copies-nothing", ("active after both copies",), "nothing is copied",
           ((Replica, "merge", lambda replica, keys, values, **how: True),), LOST_DISKS, seed=1, faults=("disks-in-turn",)),
    Mutant("replaced-goes-on", ("a replaced disk stops",), "a replaced disk goes on",
           ((Membership, "_replaced", lambda self, view: None),), LOST_DISKS, seed=2),
    # Only the exhaustive model notices these: they need an order of messages that hundreds of random seeds do not reach, or two
    # slots that are given away at the same time.
    Mutant("no-views", ("every request names its view",), "a replica answers in any view",
           ((Replica, "_handle", _in_any_view),), scopes=("join-beside-put-get",)),
    Mutant("joins-apart", ("join from two active disks of one view",), "a disk joins from two disks in different views",
           ((join, "_next_turn", _one_is_enough), (Replica, "_copy", _copy_in_any_view)), scopes=("join-beside-put-get",)),
    Mutant("any-view", ("a view changes one slot",), "a view may change two slots",
           _entering(operator.gt), scopes=("two-slots",)),
    Mutant("view-goes-back", ("views are ordered",), "a node goes back to an earlier view",
           _entering(operator.ne), scopes=("join-beside-put-get",)),
)  # fmt: skip
