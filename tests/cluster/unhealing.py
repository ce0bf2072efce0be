"""Node processes that do not heal: python -m tests.cluster.unhealing serve --config …

A node never catches up on the writes that it misses, except through read repair: for tests that need a node that lags.
"""

from quorumvault.cli import main as quorumvault
from quorumvault.server.healing.healer import Healer

if __name__ == "__main__":
    Healer.start = lambda self: None  # type: ignore[method-assign]
    quorumvault()
