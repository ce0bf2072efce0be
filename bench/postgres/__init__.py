"""``bin/bench postgres``: compares the vault with what a team might build instead: the same API over PostgreSQL, quorum commit.

api.py       an API process of the rival        database.py  PostgreSQL: a primary and two standbys
rival.py     the whole rival, under load        plan.py      the cells of the table
measure.py   pairs: the vault, then the rival   report.py    medians of pairs, ranges, targets
"""
