"""A node's own replica, as a peer: no wire in between."""

from __future__ import annotations

from collections.abc import Callable

from quorumvault.protocol.messages import Outgoing
from quorumvault.protocol.peer import OnReply, Unreachable
from quorumvault.server.replica.group_commit import GroupCommit


class LocalPeer:
    """``replica`` gives None while a node has no disk (joining): it coordinates through the others. So does one that has, as long
    as it is not ``established`` (standing.py)."""

    def __init__(self, node: str, replica: Callable[[], GroupCommit | None], established: Callable[[], bool]) -> None:
        self.node = node
        self._replica = replica
        self._established = established

    @property
    def up(self) -> bool:
        return self._replica() is not None and self._established()

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        replica = self._replica()
        if replica is not None and self._established():
            replica.submit(outgoing.request, on_reply)
        else:
            on_reply(Unreachable(sent=False))
