"""What stands on a machine of tests/rigs/machines.py in the place of a distribution's programs: ssh, scp, sshd and systemctl.

Each runs by itself, on the machine's own Python, and knows nothing of QuorumVault.
"""
