"""``bin/bench growth``: what more records, more owners, longer values and more clients cost.

plan.py    the axes, and the points on each     stores.py  clusters of so many records of so many owners
measure.py points in turn, several times over   report.py  a table for each axis; plot.py draws them
"""
