"""A node's own replica, as a peer: no wire in between."""

from __future__ import annotations

from quorumvault.groupcommit import GroupCommit
from quorumvault.peers.peer import OnReply, Unreachable
from quorumvault.protocol.messages import Outgoing


class LocalPeer:
    """``replica`` is None on a node that has no disk (joining): it coordinates through the others."""

    def __init__(self, node: str, replica: GroupCommit | None) -> None:
        self.node = node
        self._replica = replica

    @property
    def up(self) -> bool:
        return self._replica is not None

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        if self._replica is None:
            on_reply(Unreachable(sent=False))
        else:
            self._replica.submit(outgoing.request, on_reply)
