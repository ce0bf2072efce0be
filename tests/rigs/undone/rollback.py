"""Rollback marks, undone one part at a time."""

from typing import Any
from unittest import mock

from msgspec import structs

from quorumvault.protocol import join
from quorumvault.protocol.messages import Ack
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.server.healing import rollback_marks
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import data_directory, layout
from tests.rigs.undone.mutant import PUT_BACK, Mutant, Patch

_real_next_turn = join._next_turn
_real_heard = RollbackMarks.heard
_real_write = Replica._write
_real_reply_for = Replica._reply_for


def _own_alone(marks: RollbackMarks, facts: NodeFacts) -> None:
    """Ignores what peers remember of this node's disk."""
    view = marks.view()
    if view is not None and view.lists(facts.disk):
        marks.acknowledged(facts.disk, Mark(facts.incarnation, facts.sequence))


def _without_marks(*of: Any) -> Any:
    turn = _real_next_turn(*of)
    return join._CopyIn(turn.view, {}) if isinstance(turn, join._CopyIn) else turn


def _own_words_alone(marks: RollbackMarks, facts: NodeFacts) -> None:
    """Does not take over what a peer remembers of third disks."""
    replica = marks.replica()
    mine = {} if replica is None else {disk: mark for disk, mark in facts.marks.items() if disk == replica.identity.disk}
    _real_heard(marks, structs.replace(facts, marks=mine))


def _write_but_sequence(self: Replica, staged: dict[bytes, bytes]) -> None:
    write = self._store.write

    def without(puts: Any, deletes: Any = ()) -> None:
        write({key: value for key, value in puts.items() if key != layout.SEQUENCE_KEY}, deletes)

    with mock.patch.object(self._store, "write", without):
        _real_write(self, staged)


def _one_ahead(self: Replica, outcome: Any) -> Any:
    reply = _real_reply_for(self, outcome)
    return structs.replace(reply, sequence=reply.sequence + 1) if isinstance(reply, Ack) else reply


#: A disk that is behind its peers' memory of it is not detected.
NO_MARKS: Patch = (rollback_marks, "contradicts", lambda remembered, start, sequence: False)

_TESTS = "tests/unit/server/healing/test_rollback_marks.py::"

_OF_DISKS = "tests/unit/server/storage/test_data_directory.py::"

MUTANTS = (
    Mutant("no-marks", ("rollback marks",), "a disk that is behind the marks votes",
           (NO_MARKS,), PUT_BACK, seed=2, faults=("older-copy",)),
    Mutant("marks-in-memory", ("rollback marks",), "marks are only in memory",
           ((Replica, "remember", lambda replica, marks: True),), PUT_BACK, seed=4),
    Mutant("starts-alone", ("rollback marks",), "marks count starts and not writes",
           ((rollback_marks, "contradicts", lambda remembered, start, sequence: remembered.incarnation > start.incarnation),),
           PUT_BACK, seed=4),
    Mutant("nobody-listens", ("rollback marks",), "a node ignores what others remember",
           ((RollbackMarks, "heard", _own_alone),), PUT_BACK, seed=2),
    Mutant("marks-of-the-last", ("rollback marks",), "the last mark heard counts, not the largest",
           ((rollback_marks, "grown", lambda held, heard: heard),), PUT_BACK, seed=15),
    Mutant("sequence-unwritten", ("rollback marks",), "a disk does not store how many groups it wrote",
           ((Replica, "_write", _write_but_sequence),), PUT_BACK, seed=1),
    Mutant("sequence-ahead", ("rollback marks",), "an acknowledgement names a future group",
           ((Replica, "_reply_for", _one_ahead),), PUT_BACK, seed=1),
    Mutant("marks-not-handed-on", ("rollback marks",), "marks that a peer tells of third disks are not kept",
           ((RollbackMarks, "heard", _own_words_alone),),
           tests=(_TESTS + "test_it_remembers_across_a_restart_what_was_acknowledged_and_what_it_was_told",)),
    Mutant("forgets-with-its-disk", ("rollback marks",), "a node that lost its disk also loses the marks that the disk kept",
           ((data_directory, "_remembered", lambda store, identity, untrusted: {}),),
           tests=(_OF_DISKS + "test_a_torn_store_tells_what_it_remembers_and_gives_what_it_has_as_a_donor",)),
    # Before such a mark could be lost, the others tell it again: decision 11.
    Mutant("joins-without-marks", ("rollback marks", "copy after the entry, from both"), "a new disk votes before it has marks",
           ((join, "_next_turn", _without_marks),), tests=("tests/unit/protocol/test_join.py::test_the_whole_way",)),
)  # fmt: skip
