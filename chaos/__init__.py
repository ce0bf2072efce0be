"""QuorumVault seen from outside: real processes, faults, and claims that are checked.

Nothing here imports the package ``quorumvault``: these modules run its commands and speak HTTP to its nodes, as a stranger
would, so that what they find does not rest on the code they judge.

__main__.py  the command line    run.py  one run    nemesis.py  the plan of faults    mutants.py  builds broken on purpose
faults.py, joins.py, disks.py, network.py, namespaces.py    apply the plan to processes, disks and links
workload.py, asking.py, recorder.py, final.py               the clients, and what they were told, as a history
probe.py, convergence.py                                    the machine and the replicas meanwhile, in the same history
measures.py, aftermath.py, liveness.py, verdict.py, summary.py    what the history shows
report.py, timechart.py, tellers.py                         the same as a page, a picture and lines
testbed/     a cluster of real nodes, histories and their checkers, what bench and tests use too
demo/        the demonstration of bin/demo
"""
