"""Healing: a node makes three replicas equal again by itself, after the requests of clients.

All but the scrub have their half without IO in protocol/, in a module of the same name.

hinted_handoff.py  sends a peer what it missed, once it is back
anti_entropy.py    compares replicas, and mends what differs
scrub.py           reads every record on disk again
join.py            copies everything to a joining disk
rollback_marks.py  finds a disk that was put back from an older copy
"""
