"""The fuzzer: hundreds of thousands of inputs, made from a seed, for everything that reads bytes which others have written.

    target.py     the interface of a target: makes an input from randomness, and takes one
    targets.py    all targets, by name, and the share of each in a profile
    worker.py     one process that feeds one target
    campaign.py   starts that process, continues after an input that killed it, keeps what it found, and prints the table
    mutation.py   turns bytes into other bytes    canaries.py   planted values, keys and tokens, and the search for them
    nodes.py      real nodes that are watched     exchange.py   one input over a connection

    bin/fuzz json raw-http --seconds 60 --seed 7      bin/fuzz --list      bin/fuzz --profile long

Input i of a target depends only on the seed and on i. Why seeded mutation: docs/decisions/0028-fuzzing.md.
"""
