"""Rollback marks: what others remember of a disk, so that one restored from an older copy is noticed.

Each group of writes raises a disk's **sequence**, each start its **incarnation**, each view that it enters its sequence too; all
are durable before anybody hears of them. An acknowledgement names both, so whoever counts one has a **mark**: this far that disk
has been. A disk that comes back with less has forgotten what it acknowledged. Its "absent" would be a lie, so it must not vote.

    n2 acknowledges (incarnation 4, sequence 900)    n1 counts it, and remembers (4, 900) of n2's disk
    n2's directory is put back from last week         it starts from (2, 610), as incarnation 3
    n1 greets it with what it remembers: (4, 900)     n2 gives up its disk, and rejoins under a new disk id

A node keeps what it remembers on its own disk, soon after, and tells it to the others with every ping; they remember it too.
Which of this is durable when, and what is therefore not seen, is said in docs/decisions/0011. This half compares marks;
server/healing/rollback_marks.py keeps and tells them.

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

    ``start`` is where its present process began, ``sequence`` how far it is now. Of an earlier incarnation nothing can be
    remembered that was not there at the start; of the present one, nothing that is not there by now.
    """
    if remembered.incarnation < start.incarnation:
        return remembered.sequence > start.sequence
    return remembered.incarnation > start.incarnation or remembered.sequence > sequence


def grown(held: Mark, heard: Mark) -> Mark:
    """Marks only grow, incarnation and sequence each by itself."""
    return Mark(max(held.incarnation, heard.incarnation), max(held.sequence, heard.sequence))
