"""Rollback marks: what other nodes remember of a disk, to notice if the disk is restored from an older copy.

Each group of writes, and each view that a disk enters, raises the disk's **sequence**; each start raises its **incarnation**.
Both are durable before any other node hears of them. An acknowledgement names both, so a node that counts it has a **mark**: the
disk has been this far. A disk that comes back with less has forgotten writes that it acknowledged. It could falsely answer
"absent", so it must not vote.

    n2 acknowledges (incarnation 4, sequence 900)    n1 counts it, and remembers (4, 900) of n2's disk
    n2's directory is put back from last week         it starts from (2, 610), as incarnation 3
    n1 greets it with what it remembers: (4, 900)     n2 gives up its disk, and rejoins under a new disk id

A node saves its marks on its own disk soon after, and sends them to the other nodes with every ping; these remember them too.
docs/decisions/0011 says when a mark is durable, and which rollbacks therefore go unnoticed. This module compares marks;
server/healing/rollback_marks.py saves and sends them.

Rules kept here: rollback marks.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Mark(NamedTuple):
    """A point in the history of a disk: the number of its starts, and the number of the last group that it wrote."""

    incarnation: int
    sequence: int


NO_MARK = Mark(0, 0)
#: The marks that are remembered, by disk id.
Marks = Mapping[bytes, Mark]


def contradicts(remembered: Mark, start: Mark, sequence: int) -> bool:
    """True if a disk is behind the mark that is remembered of it.

    ``start`` is the disk's mark when its present process began, ``sequence`` its sequence now. A mark from an earlier incarnation
    must not be ahead of ``start``; a mark from the present incarnation must not be ahead of ``sequence``.
    """
    if remembered.incarnation < start.incarnation:
        return remembered.sequence > start.sequence
    return remembered.incarnation > start.incarnation or remembered.sequence > sequence


def grown(held: Mark, heard: Mark) -> Mark:
    """Combine two marks of a disk: incarnation and sequence each only grow."""
    return Mark(max(held.incarnation, heard.incarnation), max(held.sequence, heard.sequence))
