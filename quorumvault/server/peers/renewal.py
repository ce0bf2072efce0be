"""Renewal: ends the connections that a node's credentials no longer allow. If a CA is removed, links end one after the other.

If a reload ended all links at once, the node's current requests would fail: without a peer there is no quorum. So each link waits
until the previous link is up again, and its own requests under way are answered before it ends (link.py). It waits no longer than
a reconnection may take, because a peer that cannot come back must not keep connections alive that are no longer trusted.

Rules kept here: a node is whom its certificate names.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from quorumvault.config.limits import Timeouts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.server import PeerServer

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Renewal:
    """``call_later(seconds, callback)`` is the event loop's."""

    def __init__(self, server: PeerServer, links: Collection[Link], timeouts: Timeouts, call_later: CallLater) -> None:
        self._server = server
        self._links = links
        #: Seconds to wait for one link: requests under way are answered, and both sides prove themselves again.
        self._patience = timeouts.round + timeouts.handshake
        self._call_later = call_later
        self._left: deque[Link] = deque()
        #: The link that is being renewed, and the timer that ends the wait for it.
        self._awaited: tuple[Link, asyncio.TimerHandle] | None = None

    def begin(self) -> None:
        """This node's credentials have changed: end connections that they no longer allow; revoked peers' end at once."""
        self._server.forget_untrusted()
        for link in self._links:
            link.forget_revoked()
        self._left = deque(self._links)
        if self._awaited is None:
            self._next()

    def link_changed(self, link: Link) -> None:
        """A link has come up or gone down."""
        if self._awaited is not None and self._awaited[0] is link and link.up:
            self._awaited[1].cancel()
            self._next()

    def _next(self) -> None:
        self._awaited = None
        while self._left:
            link = self._left.popleft()
            if link.renew():
                self._awaited = link, self._call_later(self._patience, self._next)
                return
