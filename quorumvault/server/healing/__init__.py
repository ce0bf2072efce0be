"""What a node does by itself so that three replicas become the same again, behind the requests of clients.

asking.py        one request to one replica, awaited; work on the storage thread, awaited
pace.py          loops that rest as long as they worked, and survive what fails in them
handoff.py       what a peer missed reaches it when it is back
antientropy.py   replicas are compared, and what differs is mended
scrub.py         every record on disk is read again
"""
