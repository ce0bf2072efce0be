"""``bin/bench growth``: the cost of more records, more owners, longer values and more clients.

plan.py    the axes, and the points on each     stores.py  clusters with a given number of records and owners
measure.py points in turn, several times        report.py  a table for each axis; plot.py draws them
"""
