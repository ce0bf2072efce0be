"""The administrative operations of a node, through a socket in its data directory, for an operator on the same host.

socket.py   admin.sock, and who can reach it
routes.py   the operations
status.py   the state of a node and its peers, in detail
schemas.py  the answers
"""
