"""Backups: all that a cluster has committed, sealed as it is, in one file; and a new cluster out of it.

format.py    the bytes of a backup
union.py     merges several ordered stores, with bounded memory
audit.py     checks that each record is what was sealed for its place
take.py      a running node makes one, from its own disk and that of a peer; one at a time

server/offline/restore.py makes a new cluster of one.
"""
