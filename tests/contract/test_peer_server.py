"""What the peer port promises towards strangers, towards nodes that it refuses, and towards those that ask too much of it."""
