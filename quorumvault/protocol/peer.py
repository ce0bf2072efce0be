"""A replica as its coordinator sees it, here or across the network: send a request, be called back exactly once.

Rules kept here: unknown is an outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quorumvault.protocol.messages import AnyReply, Outgoing


@dataclass(frozen=True, slots=True)
class NoReply:
    """No reply will come. ``sent`` is False only if the request surely never reached a store: then it has written nothing.

    It decides only what an error says of the replica. Every write round that asked anybody counts as one that may have written.
    """

    sent: bool


OnReply = Callable[[AnyReply | NoReply], None]


class Peer(Protocol):
    """A replica as its coordinator sees it. Called on the event loop's thread only, and calls back there."""

    @property
    def node(self) -> str: ...

    @property
    def up(self) -> bool:
        """True if a request sent now can reach the replica, as far as is known."""

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        """Never blocks and never raises; ``on_reply`` is called exactly once, perhaps before this returns."""
