"""The fault-injection harness: it tests QuorumVault from outside, with real processes, faults, and checked claims.

Nothing here imports the package ``quorumvault``, except that autopsy.py takes the LevelDB binding from it. These modules run its
commands and speak HTTP to its nodes, as a stranger would, so that their findings do not depend on the code under test.

__main__.py  the command line    run.py  one run    nemesis.py  the plan of faults    mutants.py  builds broken on purpose
faults.py, joins.py, disks.py, network.py, namespaces.py    apply the plan to processes, disks and links
workload.py, asking.py, recorder.py, final.py               record the clients' requests and answers as a history
probe.py, convergence.py                                    observe the machine and the replicas, in the same history
measures.py, aftermath.py, liveness.py, verdict.py, summary.py    what the history shows
report.py, timechart.py, tellers.py                         the results as a page, a picture and lines
testbed/     a cluster of real nodes, histories and their checkers; bench and tests use it too
demo/        the demonstration of bin/demo
"""
