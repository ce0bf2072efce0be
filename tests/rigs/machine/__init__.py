"""Stand-ins for a distribution's programs on a machine of tests/rigs/machines.py: ssh, scp, sshd and systemctl.

Each stand-in runs alone, on the machine's own Python, and knows nothing of QuorumVault.
"""
