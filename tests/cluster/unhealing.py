"""Nodes that do not heal, as processes: python -m tests.cluster.unhealing serve --config …

What one of them has missed it goes on to lack, but for what a read writes back to it: for tests in which a node has to lag.
"""

from quorumvault.cli import main as quorumvault
from quorumvault.server.healing.healer import Healer

if __name__ == "__main__":
    Healer.start = lambda self: None  # type: ignore[method-assign]
    quorumvault()
