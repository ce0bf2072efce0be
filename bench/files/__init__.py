"""Measures how long it takes to detokenize whole files: with the command, and with DuckDB alone as a baseline.

plan.py     which tables                  child.py    a process: its time, its CPU, its peak RSS
dataset.py  makes the tables              alone.py    the process of DuckDB alone
run.py      the copies, one by each       paths.py    texts a second, in Arrow and in JSON
report.py   a whole run, its figures, tables and sentences
"""
