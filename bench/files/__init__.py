"""Measures how long whole files take to get their values back: by the command, and by DuckDB alone as a yardstick.

plan.py     which tables                  child.py    a process: its time, its CPU, its largest memory
dataset.py  makes them                    alone.py    DuckDB alone: that process
run.py      the copies, one by each       paths.py    texts a second, in Arrow and in JSON
report.py   a whole run, its figures, tables and sentences
"""
