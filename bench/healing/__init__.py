"""Acceptance runs on a million records a node, and on ten: nodes heal in the time that is promised, and stay small.

plan.py         how many records, which part, for how long
stores.py       three stores with the same records, made without the nodes, and what their tokens are
foreground.py   what clients ask meanwhile; everything read back
mending.py      a node that was away, one that lost its disk, one whose tables rot
size.py         start, memory, an idle comparison, new tokens among many records
report.py       the figures as types, and how they stand to their targets
command.py      a whole run
"""
