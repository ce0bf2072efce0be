"""The benchmarks of ``bin/bench``: what is measured of real nodes, beside a yardstick where there is one.

__main__.py  one command line for all       report.py     one form of report: targets, tables, sentences
http.py      a closed loop of requests      openloop.py   an open one
load.py      a cluster under load           processes.py  what its processes cost
work.py      requests, and right answers    results/      the figures behind docs/benchmarks.md

plan.py, measure.py, floor.py, figures.py, plot.py (panels.py)   the vault beside the floor
files/, healing/, postgres/, growth/, notfound.py (effects.py), overload.py   the other benchmarks
"""
