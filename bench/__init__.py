"""The benchmarks of ``bin/bench``: they measure real nodes, beside a baseline where there is one.

__main__.py  one command line for all       report.py     one form of report: targets, tables, sentences
http.py      closed-loop client             openloop.py   open-loop client
load.py      a cluster under load           processes.py  CPU, memory and disk of processes
work.py      requests and right answers     results/      the figures behind docs/benchmarks.md

plan.py, measure.py, floor.py, figures.py, plot.py (panels.py)   the vault compared with the floor
files/, healing/, postgres/, growth/, notfound.py (effects.py), overload.py   the other benchmarks
"""
