"""Standing: this process may vote once it knows that no other process votes under its name.

    alone ──a first peer, W, welcomes it──▶ asking ──the other peer, V, welcomes it or cannot be reached──▶ established
      ▲                                                                                                          │
      └───────────────────────────────────── no link is up any more ─────────────────────────────────────────────┘
    withdrawn, for good: a peer said that the name is taken, so the process stops

A peer that welcomes a process holds its name for it until the last connection between them has ended (claims.py). Only an
established process votes; until then its replica answers nobody, not even its own coordinator.

It has one peer hold its name first, and asks the other one then: raise your own flag, then look at the other's, as in
Peterson, "Myths About the Mutual Exclusion Problem" (1981). Let X and Y be processes of one name that both vote, X held by W
and Y, later, by V. After that Y asked W, which turned it away or could not be reached: so Y is cut off from W. X is cut off
from V, which would turn it away as soon as it dials. So two vote only while the cluster is cut in two, a copy of the disk in
each part, and no peer sees both. Once one does, one of the two stops. If both start at one instant each may be turned away by
the peer that holds the other: never two, perhaps none.

A process that was held up for timeouts.silence or longer cannot tell whether its links are up: what came meanwhile is read as
if it had just come. Its peers may have given its name to another one. So it ends its links itself when it goes on (link.py), and
asks both peers again.

It costs a start nothing but the time until both peers have answered, or have refused a connection; a peer that swallows
connections costs timeouts.handshake. With no peer there is no quorum either, so nothing is lost by waiting for one.

Limits: a node that others can dial, and that can dial none of them itself, does not vote. One attempt that is reset before the
handshake is over counts as a peer that cannot be reached. If the process that this peer holds hangs then, and goes on before the
next attempt, two vote until that one: for timeouts.reconnect_last at most. A machine that was suspended, or whose clocks all
stood still, does not know that it was held up.

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
        """Another process has this one's name, or a peer remembers more of this disk than it has: never vote again."""
        if not self.withdrawn:
            self.withdrawn, self.established = True, False
            self._on_change()

    def _ask(self, others: Collection[Link]) -> None:
        self._asked = {other.node for other in others}
        for other in others:
            other.dial_now(partial(self._answered, other))
        self._settle()

    def _answered(self, link: Link) -> None:
        """This peer's link is up, or the peer cannot be reached."""
        if self._asked is not None:
            self._asked.discard(link.node)
        self._settle()

    def _settle(self) -> None:
        established = self._asked is not None and not self._asked and not self.withdrawn
        if established != self.established:
            self.established = established
            self._on_change()
