"""Backups: all that a cluster has committed, sealed as it is, in one file; and a new cluster out of it.

format.py    the bytes of a backup
union.py     what several ordered stores hold together, with bounded memory
audit.py     whether what goes in, or comes out, is what was sealed for its place
taking.py    a running node makes one, from its own disk and that of a peer
restore.py   a new cluster out of one, offline
"""
