"""A seeded simulator: the real coordinator, rounds and replicas in a world where time, network, disks and clocks are simulated.

    timeline.py   events in virtual time; the event loop that a coordinator runs on
    network.py    messages between nodes: late, lost, twice, out of order, one way only
    disks.py      a replica's store on a disk that loses, fills up, slows down and rots
    nodes.py      a node: its disk, and the process on it, which can die, stop and start again
    faults.py     which faults happen, and when each is mended
    clients.py    what clients ask for
    witnesses.py  which disks answered "absent", in which round
    world.py      a scenario made from a seed, and its run
    losses.py     disks that are lost; disks that are replaced while the old process lives on; joins that break off half-way
    rejoining.py  nodes that rejoin, while disks are lost
    healing.py    nodes that run handoff, anti-entropy and scrub
    two_sets.py   two sets of three nodes, and the operations that span both: a design that is not built
    files.py      nodes on real data directories (data_directories.py), with faults in their files (file_faults.py), and with
                  power cuts during their starts (power_cuts.py)
    links.py      nodes on the real links over simulated TCP (streams.py), and the rules for these links (link_rules.py)
    plays.py      the plays: which of these parts run together
    shrink.py     finds the smallest run that still fails
    run.py        the command line: bin/simulate

What clients asked and were told is recorded as a history. Checkers judge each history. Both are shared with the
harness that breaks real processes: chaos/testbed/history.py, chaos/testbed/checkers.py.

The checkers have to notice each mutant, which undoes one safety (tests/rigs/undone/).

Every choice is drawn from the seed: the same seed gives the same run, to the last byte.
"""
