"""Rules of views that only several parts together keep, undone one at a time."""

from collections.abc import Generator
from functools import partial
from typing import Any
from unittest import mock

from msgspec import structs

from quorumvault.protocol import join, messages, operations, read_repair
from quorumvault.protocol.messages import Ack, Put
from quorumvault.protocol.rounds import Lost, ViewRefused
from quorumvault.protocol.steps import ATTEMPTS, Ask
from quorumvault.protocol.views import View, may_enter
from quorumvault.protocol.write import WriteRound
from quorumvault.server.coordinator.exchange import Exchange
from quorumvault.server.node import membership
from quorumvault.server.replica import replica as replicas
from quorumvault.server.replica import revoked_keys
from quorumvault.server.replica.replica import Replica
from quorumvault.server.replica.revoked_keys import RevokedKeys
from tests.rigs.undone.mutant import LOST_DISKS, Mutant

_real_put = operations._put
_real_write_back = read_repair.write_back
_real_copy_in = join._copy
_real_next_turn = join._next_turn
_real_refusal_of = revoked_keys.refusal_of
_real_store = RevokedKeys.store
_real_on_reply = Exchange._on_reply
_real_become = Replica._become
_RealCopies = join._Copies


class _Carrying(WriteRound):
    """A write round that begins with the acknowledgements of the refused round."""

    def __init__(self, *arguments: Any, carried: list[Ack]) -> None:
        super().__init__(*arguments)
        self._carried = carried
        self._replies += [ack for ack in carried if self._tally.vote(ack.disk, yes=True)]

    def receive(self, reply: Any) -> Any:
        decision = super().receive(reply)
        if isinstance(decision, ViewRefused):
            self._carried[:] = self._replies
        return decision


def _put_carrying_over(*of: Any) -> Generator[Ask, Any, object]:
    carried: list[Ack] = []
    for _ in range(ATTEMPTS):
        steps = _real_put(*of)
        try:
            ask = next(steps)
            while True:
                held = Ask(ask.request, partial(_Carrying, carried=carried)) if isinstance(ask.request, Put) else ask
                ask = steps.send((yield held))
        except StopIteration as end:
            if not isinstance(end.value, ViewRefused):
                return end.value
    return Lost()


def _write_back_in_any_view(*of: Any) -> Generator[Ask, Any, bool]:
    steps = _real_write_back(*of)
    try:
        ask = next(steps)
        while True:
            ask = steps.send((yield Ask(ask.request, ask.round, disk=ask.disk)))
    except StopIteration as end:
        return bool(end.value)


def _copying(change: Any) -> Any:
    """join._copy, whose answers are changed before it receives them."""

    def copy(view: View, others: tuple[str, ...], copies: Any, *donor: Any) -> Generator[Any, Any, Any]:
        steps = _real_copy_in(view, others, copies, *donor)
        try:
            step = next(steps)
            while True:
                told = yield step
                step = steps.send({node: change(reply) for node, reply in told.items()})
        except StopIteration as end:
            return end.value

    return copy


def _the_last_one(reply: Any) -> Any:
    return structs.replace(reply, last=True) if isinstance(reply, messages.Copied) else reply


def _nothing_more(reply: Any) -> Any:
    head = reply.round, reply.view, reply.disk
    return messages.Copied(*head, [], [], True) if isinstance(reply, messages.NotCopied) else reply


def _never_displaced(node: str, disk: bytes, entered: Any, others: tuple[str, ...], told: Any) -> Any:
    return _real_next_turn(node, disk, None, others, told)


def _by_number(disk: bytes, current: View, proposed: View) -> bool:
    return proposed.number > current.number and may_enter(disk, current, proposed)


def _told_in_any_view(identity: Any, request: Any) -> Any:
    refusal = _real_refusal_of(identity, request)
    return None if isinstance(refusal, messages.OtherView) else refusal


def _stored_in_any_view(self: RevokedKeys, request: Any, identity: Any, *rest: Any) -> Any:
    view = identity.view
    return _real_store(self, request if view is None else structs.replace(request, view=view.id), identity, *rest)


def _by_name(self: Exchange, target: Any, reply: Any) -> None:
    """Treats the disk that answers at a node as the disk that was asked."""
    named = hasattr(reply, "disk") and not isinstance(reply, messages.OtherView | messages.NotVoting)
    _real_on_reply(self, target, structs.replace(reply, disk=target.disk) if named else reply)


def _entered_without_a_write(self: Replica, identity: Any) -> bool:
    write, self._write = self._write, lambda staged: None  # type: ignore[method-assign]
    try:
        return _real_become(self, identity)
    finally:
        self._write = write  # type: ignore[method-assign]


_JOIN = "tests/unit/protocol/test_join.py::"

MUTANTS = (
    Mutant("repaired-in-any-view", ("read repair before the answer", "every request names its view"),
           "a write-back is not tied to the view of its read", ((operations, "write_back", _write_back_in_any_view),),
           scopes=("join-beside-repair",)),
    Mutant("revoked-in-any-view", ("every request names its view",), "revoked keys are told and taken in any view",
           ((revoked_keys, "refusal_of", _told_in_any_view), (RevokedKeys, "store", _stored_in_any_view)),
           scopes=("join-beside-revoke-read",)),
    Mutant("first-piece", ("active after both copies",), "the first piece of a copy counts as all of it",
           ((join, "_copy", _copying(_the_last_one)),), LOST_DISKS, seed=1, scopes=("join-piece-by-piece",)),
    # Unit tests cover these: no play loses a disk while another one rots, and no world has two processes of one name.
    Mutant("copies-what-it-can", ("active after both copies",), "a source that cannot read on counts as copied",
           ((join, "_copy", _copying(_nothing_more)),), tests=(_JOIN + "test_what_a_source_cannot_read_is_waited_for",)),
    Mutant("copy-across-views", ("copy after the entry, from both",), "a copy continues in another view",
           ((join, "_Copies", lambda view: _RealCopies(mock.ANY)),),
           tests=(_JOIN + "test_a_view_that_came_in_between_begins_the_copies_anew",)),
    Mutant("displaced-fights", ("a replaced disk stops",), "a joining disk that lost its slot claims it back",
           ((join, "_next_turn", _never_displaced),),
           tests=(_JOIN + "test_a_disk_that_had_entered_a_view_gives_up_its_slot_to_a_newer_one",)),
    Mutant("entered-unwritten", ("rollback marks",), "entering a view does not count as a write",
           ((Replica, "_become", _entered_without_a_write),),
           tests=("tests/unit/server/healing/test_rollback_marks.py::test_a_view_that_is_entered_counts_as_a_write",)),
    Mutant("views-by-number", ("views are ordered",), "views with the same number are not ordered",
           ((replicas, "may_enter", _by_number), (membership, "may_enter", _by_number)),
           tests=("tests/model/test_rejoin.py::test_two_that_join_at_a_time_leave_nobody_apart",)),
    Mutant("carried-over", ("a refused round starts again",), "acknowledgements of the previous view still count",
           ((operations, "_put", _put_carrying_over),), LOST_DISKS,
           covered="a disk that the newer view does not list has no vote there (a reply counts once); one that it lists has what "
           "it acknowledged, since it synced that first"),
    Mutant("answers-by-name", ("a reply counts once",), "an answer counts for its node, whichever disk the node has",
           ((Exchange, "_on_reply", _by_name),), LOST_DISKS,
           covered="a view names its disks, and a disk answers only in its own view that lists it (every request names its view; "
           "only active listed disks vote)"),
)  # fmt: skip
