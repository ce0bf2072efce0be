"""The gate to a node's own replica: every request goes through it, from this node's coordinator and from its peers."""

from collections.abc import Callable
from dataclasses import dataclass

from quorumvault.protocol import records
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import AnyReply, AnyRequest, NotVoting, Outgoing, Put, ReadRevoked, RevokeKeys
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.replica.revoked_keys import RevokedKeys


@dataclass(eq=False)
class LocalPeer:
    """Implements Peer: to the coordinator, its own replica is a peer like the two others, without a wire.

    ``storage`` returns None while the node has no disk (it is joining); ``disk`` returns the id that its disk has or will have.
    ``established`` says whether this process may vote (peers/standing.py). ``revoking`` is called when the replica has stored
    revoked keys that it did not have. It is not called for other keys: otherwise all nodes would ask and write back without rest
    for as long as one disk refuses them. ``clock`` follows the versions of incoming records; ``wall_ms`` returns milliseconds
    since 1970.
    """

    node: str
    storage: Callable[[], GroupCommit | None]
    disk: Callable[[], bytes]
    established: Callable[[], bool]
    clock: HybridClock
    wall_ms: Callable[[], int]
    revoking: Callable[[], None] = lambda: None

    @property
    def up(self) -> bool:
        return self.storage() is not None and self.established()

    def send(self, outgoing: Outgoing, on_reply: OnReply) -> None:
        self.submit(outgoing.request, on_reply)

    def submit(self, request: AnyRequest, on_reply: OnReply) -> None:
        """Pass a request on to the storage thread. ``on_reply`` is called once, on the event loop's thread, perhaps at once:

        NotVoting without a disk, NoReply while this process may not vote, or when too much waits for the disk already.
        """
        if isinstance(request, Put) and records.is_value_header(request.header):
            self.clock.observe(records.version_of(request.header).clock, self.wall_ms())
        storage = self.storage()
        if storage is None:
            on_reply(NotVoting(request.round, request.view, self.disk()))
        elif not self.established():
            on_reply(NoReply(sent=False))
        elif isinstance(request, ReadRevoked):  # from memory: a slow disk must not keep a node from knowing
            on_reply(storage.replica.revoked.answer(request, storage.replica.identity))
        elif isinstance(request, RevokeKeys):
            before = storage.replica.revoked.ids
            storage.submit(request, lambda reply: self._answer_revoked(reply, on_reply, storage.replica.revoked, before))
        else:
            storage.submit(request, on_reply)

    def _answer_revoked(self, reply: AnyReply | NoReply, on_reply: OnReply, revoked: RevokedKeys, before: frozenset[str]) -> None:
        on_reply(reply)
        if revoked.ids is not before:
            self.revoking()
