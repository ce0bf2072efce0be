"""The harness: what it is made of, and broken nodes for it to find."""
