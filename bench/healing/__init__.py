"""Acceptance runs on one and ten million records a node: nodes heal within the promised time, and stay small.

plan.py         how many records, which part, for how long
stores.py       three stores with the same records, made without the nodes, and the tokens of the records
foreground.py   the clients' requests meanwhile; reads everything back
mending.py      a node that was away, one that lost its disk, one with bit rot in its tables
size.py         start, memory, an idle comparison, new tokens among many records
report.py       the figures as types, and their comparison with the targets
command.py      a whole run
"""
