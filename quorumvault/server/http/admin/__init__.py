"""What an operator on a node's own host may ask of it, through a socket in its data directory.

socket.py   admin.sock: who can reach it
app.py      the routes
status.py   how a node is, in depth
bodies.py   what is answered
client.py   the other end, for the command line
"""
