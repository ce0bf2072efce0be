"""A seeded simulator: the real coordinator, rounds and replicas in a world where time, network, disks and clocks are simulated.

    timeline.py   events in virtual time; the event loop that a coordinator runs on
    network.py    messages between nodes: late, lost, twice, out of order, one way only
    disks.py      a replica's store on a disk that loses, fills up, slows down and rots
    nodes.py      a node: its disk, and the process on it that dies, is stopped and starts again
    faults.py     what goes wrong, and when it is mended
    clients.py    what clients ask for
    witnesses.py  who said "absent" to whom
    world.py      a scenario out of a seed, and its run
    losses.py     disks that are lost, replaced while the old process lives on, or whose replacement is broken in its middle
    rejoining.py  nodes that rejoin, while disks are lost
    healing.py    nodes that hand off, compare and scrub
    two_sets.py   two sets of three nodes, and what spans them: a design that is not built
    files.py      nodes on real data directories (data_directories.py), to which something happens (file_faults.py), and whose
                  starts are cut short (power_cuts.py)
    links.py      nodes on the real links over simulated TCP (streams.py), and what has to hold of these (link_rules.py)
    plays.py      what of all that is run together
    shrink.py     the smallest run that still fails
    run.py        the command line: bin/simulate

What they asked and were told is a history, and what may never be told is judged by checkers, which both are shared with the
harness that breaks real processes: chaos/testbed/history.py, chaos/testbed/checkers.py.

The checkers have to notice each safety that is undone (tests/rigs/undone/).

Everything is drawn from the seed: same seed, same run, to the last byte.
"""
