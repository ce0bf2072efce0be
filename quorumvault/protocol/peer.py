"""A replica as its coordinator sees it, local or remote: the coordinator sends a request, and is called back exactly once.

Rules kept here: unknown is an outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quorumvault.protocol.messages import AnyReply, Outgoing


@dataclass(frozen=True, slots=True)
class NoReply:
    """No reply will come. ``sent`` is False only if the request certainly reached no store, and so wrote nothing.

    ``sent`` affects only what an error says about the replica. A write round that asked any replica may have written something.
    """

    sent: bool


OnReply = Callable[[AnyReply | NoReply], None]


class Peer(Protocol):
    """A replica as its coordinator sees it. Callers and callbacks run on the event loop's thread only."""

    @property
    def node(self) -> str: ...

    @property
    def up(self) -> bool:
        """True if a request sent now can reach the replica, as far as this node knows."""

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        """Send a request. Never blocks, never raises. Calls ``on_reply`` exactly once, possibly before this returns."""
