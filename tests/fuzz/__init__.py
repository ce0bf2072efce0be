"""The fuzzer: inputs by the hundred thousand, made from a seed, for everything that reads bytes which somebody else has written.

    target.py     what a target is: makes an input from randomness, and takes one
    targets.py    all targets, by name, and what each gets of a profile
    worker.py     one process that feeds one target
    campaign.py   starts it, goes on behind an input that killed it, keeps what was found, and prints the table
    mutation.py   bytes into other bytes          canaries.py   planted values, keys and tokens, and the search for them
    nodes.py      real nodes that are watched     exchange.py   one input over a connection

    bin/fuzz json raw-http --seconds 60 --seed 7      bin/fuzz --list      bin/fuzz --profile long

Input i of a target depends on the seed and on i alone. Why seeded mutation: docs/decisions/0028-fuzzing.md.
"""
