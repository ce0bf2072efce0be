"""Backups: one file with everything that a cluster has committed, still sealed, from which a new cluster can be made.

format.py    the bytes of a backup
union.py     merges several ordered stores, with bounded memory
audit.py     checks that each record was sealed for its place
take.py      a running node takes a backup, from its own disk and a peer's; one at a time

server/offline/restore.py makes a new cluster from a backup.
"""
