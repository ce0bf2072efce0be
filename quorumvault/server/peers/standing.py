"""Standing: this process may vote once it knows that no other process votes under its name.

    alone ──a first peer, W, welcomes it──▶ asking ──the other peer, V, welcomes it or cannot be reached──▶ established
      ▲                                                                                                          │
      └───────────────────────────────────── no link is up any more ─────────────────────────────────────────────┘
    withdrawn, for good: a peer said that the name is taken, so the process stops

A peer that welcomes a process holds the name for it until the last connection between the two has ended (claims.py). Only an
established process votes; until then its replica answers no one, not even its own coordinator.

The process first has one peer hold its name, and then asks the other peer: raise your own flag, then look at the other's, as in
Peterson, "Myths About the Mutual Exclusion Problem" (1981). Let X and Y be processes of one name that both vote, where W holds
the name for X, and V, later, holds it for Y. After that Y asked W, and W turned Y away or could not be reached. A process that is
turned away stops, so Y is cut off from W. X is cut off from V, which would turn X away as soon as X dials. So two processes vote
only while the cluster is partitioned, a copy of the disk in each part, and no peer sees both. Once a peer sees both, one of the
two stops. If both start at the same instant, each may be turned away by the peer that holds the name for the other: then perhaps
neither votes, but never both.

A process that was held up for timeouts.silence or longer cannot tell whether its links are up, because it reads whatever came
meanwhile as if it had just arrived. Its peers may have given its name to another process. So when it resumes, it ends its links
(link.py) and asks both peers again.

A start costs only the time until both peers have answered or refused a connection; a peer that swallows connections costs
timeouts.handshake. Without a peer there is no quorum either, so waiting for a peer loses nothing.

Limits: a node that others can dial, but that can dial no other node itself, does not vote. A single attempt that is reset before
the handshake is over counts as an unreachable peer. If the process for which this peer holds the name hangs at that moment, and
resumes before the next attempt, two processes vote until that attempt: for at most timeouts.reconnect_last. A machine that was
suspended, or whose clocks all stood still, cannot tell that it was held up.

Rules kept here: one process per name.
"""

from collections.abc import Callable, Collection
from functools import partial

from quorumvault.server.peers.link import Link


class Standing:
    """``established``: this process may vote; ``withdrawn``: it never votes again, and is about to end. ``on_change`` is called
    when one of them changes. Used on the event loop's thread only."""

    def __init__(self, links: Collection[Link], on_change: Callable[[], None]) -> None:
        self.established = False
        self.withdrawn = False
        self._links = links
        self._on_change = on_change
        #: The peers whose answer is awaited; None while no peer holds this process's name.
        self._asked: set[str] | None = None

    def link_changed(self, link: Link) -> None:
        """A link has come up or gone down; called before anything is sent over it."""
        if not any(each.up for each in self._links):
            self._asked = None
            self._settle()
        elif self._asked is None:
            self._ask([other for other in self._links if other is not link])
        elif link.up:
            self._answered(link)

    def withdraw(self) -> None:
        """Never vote again: another process holds this process's name, or a peer's mark is ahead of this disk."""
        if not self.withdrawn:
            self.withdrawn, self.established = True, False
            self._on_change()

    def _ask(self, others: Collection[Link]) -> None:
        self._asked = {other.node for other in others}
        for other in others:
            other.dial_now(partial(self._answered, other))
        self._settle()

    def _answered(self, link: Link) -> None:
        """Note that this peer's link is up, or that the peer cannot be reached."""
        if self._asked is not None:
            self._asked.discard(link.node)
        self._settle()

    def _settle(self) -> None:
        established = self._asked is not None and not self._asked and not self.withdrawn
        if established != self.established:
            self.established = established
            self._on_change()
