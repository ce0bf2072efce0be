"""How long it takes to give whole files their values back: the command, beside what DuckDB alone needs for the same copy.

plan.py     which tables                  child.py    a process: its time, its CPU, its largest memory
dataset.py  makes them                    alone.py    DuckDB alone: that process
run.py      the copies, one by each       paths.py    texts a second, in Arrow and in JSON
report.py   a whole run, its figures, tables and sentences
"""
