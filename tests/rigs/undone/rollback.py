"""Rollback marks, undone one part at a time."""

from quorumvault.protocol.rollback_marks import Mark
from quorumvault.server.healing import rollback_marks
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import PUT_BACK, Mutant


def _own_alone(marks: RollbackMarks, facts: NodeFacts) -> None:
    """What peers remember of this node's disk is not looked at."""
    view = marks.view()
    if view is not None and view.lists(facts.disk):
        marks.acknowledged(facts.disk, Mark(facts.incarnation, facts.sequence))


MUTANTS = (
    Mutant("no-marks", ("rollback marks",), "a disk that is behind them votes",
           ((rollback_marks, "contradicts", lambda remembered, start, sequence: False),),
           PUT_BACK, seed=1, faults=("older-copy",)),
    Mutant("marks-in-memory", ("rollback marks",), "they are in memory alone",
           ((Replica, "remember", lambda replica, marks: True),), PUT_BACK, seed=1),
    Mutant("starts-alone", ("rollback marks",), "starts count, and writes do not",
           ((rollback_marks, "contradicts", lambda remembered, start, sequence: remembered.incarnation > start.incarnation),),
           PUT_BACK, seed=1),
    Mutant("nobody-listens", ("rollback marks",), "a node does not hear what others remember",
           ((RollbackMarks, "heard", _own_alone),), PUT_BACK, seed=1),
)  # fmt: skip
