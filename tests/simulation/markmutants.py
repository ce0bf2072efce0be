"""Rollback marks undone one part at a time, for nodes whose disks are put back from older copies (rollback.py)."""

from __future__ import annotations

from quorumvault.protocol.rollback_marks import Mark, Marks
from quorumvault.server.healing import rollback_marks
from quorumvault.server.healing.rollback_marks import Memory
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import Replica
from tests.simulation.patches import PUT_BACK, Mutant, replaced


def _nothing_is_kept(replica: Replica, marks: Marks) -> bool:
    """Marks are in memory alone."""
    return True


def _trusts(remembered: Mark, start: Mark, sequence: int) -> bool:
    return False


def _counts_starts(remembered: Mark, start: Mark, sequence: int) -> bool:
    return remembered.incarnation > start.incarnation


def _own_alone(memory: Memory, facts: NodeFacts) -> None:
    """What peers remember of this node's disk is not looked at."""
    view = memory._view()
    if view is not None and view.lists(facts.disk):
        memory.acknowledged(facts.disk, Mark(facts.incarnation, facts.sequence))


def _marks(name: str, undoes: str, owner: object, attribute: str, replacement: object) -> Mutant:
    return replaced(name, undoes, owner, attribute, replacement, PUT_BACK)


MARKS = (
    _marks("no-marks", "rollback marks: a disk that is behind them votes", rollback_marks, "contradicts", _trusts),
    _marks("marks-in-memory", "rollback marks: they are in memory alone", Replica, "remember", _nothing_is_kept),
    _marks("starts-alone", "rollback marks: starts count, and writes do not", rollback_marks, "contradicts", _counts_starts),
    _marks("nobody-listens", "rollback marks: a node does not hear what others remember", Memory, "heard", _own_alone),
)
