"""Healing: each node makes the three replicas equal again in the background, apart from clients' requests.

Except for the scrub, the part without IO of each module is in protocol/, under the same name.

hinted_handoff.py  sends a peer the writes that it missed, once the peer is back
anti_entropy.py    compares replicas, and repairs differences
scrub.py           reads every record on disk again
join.py            copies everything to a joining disk
rollback_marks.py  detects a disk that was restored from an older copy
"""
