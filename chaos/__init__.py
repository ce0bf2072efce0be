"""QuorumVault seen from outside: real processes, faults, and claims that are checked.

Nothing here imports the package ``quorumvault``: these modules run its commands and speak HTTP to its nodes, as a stranger
would, so that what they find does not rest on the code they judge.
"""
