"""``bin/bench postgres``: the vault beside what a team would build instead, the same API over PostgreSQL with quorum commit.

api.py       one of its API processes           database.py  PostgreSQL: a primary and two standbys
rival.py     all of it together, under load     plan.py      the cells of the table
measure.py   pairs: the vault, then the rival   report.py    medians of pairs, ranges, targets
"""
