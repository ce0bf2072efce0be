"""Requests to single replicas, and work on the storage thread, as awaitables."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from quorumvault.protocol.messages import AnyReply, AnyRequest, NotVoting, OtherView, Outgoing, RoundId
from quorumvault.protocol.peer import NoReply, OnReply, Peer
from quorumvault.protocol.views import View, ViewId
from quorumvault.server.replica.replica import OwnWork, Replica

ResultT = TypeVar("ResultT")


class NoAnswer(Exception):
    """A replica did not answer, or is not active in the view. The message is for logs and operators."""


class Storage(Protocol):
    """The storage thread (replica/group_commit.py), or a simulator's."""

    def submit(self, request: AnyRequest | OwnWork, on_reply: OnReply) -> None: ...


async def on_storage_thread(storage: Storage, work: Callable[[Replica], ResultT]) -> ResultT:
    """Returns the result of ``work``. Raises NoAnswer if too much waits already; an exception in ``work`` ends the process."""
    done: asyncio.Future[ResultT | NoReply] = asyncio.get_running_loop().create_future()
    storage.submit(OwnWork(work), lambda result: None if done.done() else done.set_result(result))  # type: ignore[arg-type]
    result = await done
    if isinstance(result, NoReply):
        raise NoAnswer("too much waits for this node's disk")
    return result


@dataclass(eq=False)
class ReplicaClient:
    """Sends requests to single replicas, including this node's own, in the newest view that this node knows.

    ``nonce`` belongs to this client only, so that its round ids never equal a coordinator's. ``timeout`` is in seconds.
    """

    node: str
    disk: Callable[[], bytes]
    nonce: bytes
    peers: Mapping[str, Peer]
    newest_view: Callable[[], View | None]
    timeout: float

    def __post_init__(self) -> None:
        self._rounds = itertools.count(1)

    @property
    def view(self) -> View | None:
        """The newest view that this node knows; None if it knows none."""
        return self.newest_view()

    def listed(self, node: str) -> bytes | None:
        """Returns the disk that the view lists for this node; None without a view."""
        view = self.newest_view()
        return None if view is None else view.disks[node]

    def can_ask(self, node: str) -> bool:
        return self.newest_view() is not None and self.peers[node].up

    async def ask(self, node: str, make: Callable[[RoundId, ViewId], AnyRequest]) -> AnyReply:
        """Returns the answer of the disk that the view lists for this node. Raises NoAnswer if that disk does not vote."""
        return await self.send(node, make).answer()

    def send(self, node: str, make: Callable[[RoundId, ViewId], AnyRequest]) -> Asked:
        """Send a request as ``ask`` does, without waiting for the answer. Raises NoAnswer if this node knows no view."""
        view = self.newest_view()
        if view is None:
            raise NoAnswer("this node knows no view")
        request = make(RoundId(self.disk(), self.nonce, next(self._rounds)), view.id)
        return Asked.sent(self.peers[node], view.disks[node], request, self.timeout)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to one replica."""

    node: str
    disk: bytes
    request: AnyRequest
    settled: asyncio.Future[AnyReply | NoReply]

    @classmethod
    def sent(cls, peer: Peer, disk: bytes, request: AnyRequest, timeout: float) -> Asked:
        """Send a request, which gets NoReply after ``timeout`` seconds. ``disk`` is the disk that must answer."""
        loop = asyncio.get_running_loop()
        asked = cls(peer.node, disk, request, loop.create_future())
        timer = loop.call_later(timeout, asked.settle, NoReply(sent=True))
        asked.settled.add_done_callback(lambda _: timer.cancel())
        peer.send(Outgoing(request), asked.settle)
        return asked

    def settle(self, reply: AnyReply | NoReply) -> None:
        if not self.settled.done():
            self.settled.set_result(reply)

    async def answer(self) -> AnyReply:
        """Returns the reply of the right disk in the right round and view. Raises NoAnswer for any other reply, and for none."""
        reply, node = await self.settled, self.node
        if isinstance(reply, NoReply):
            raise NoAnswer(f"{node} does not answer")
        if isinstance(reply, OtherView):
            raise NoAnswer(f"{node} is in another view")
        if isinstance(reply, NotVoting):
            raise NoAnswer(f"{node} {'has no room' if reply.full else 'does not vote'}")
        if (reply.disk, reply.round, reply.view) != (self.disk, self.request.round, self.request.view):
            raise NoAnswer(f"{node} runs with a disk that the view does not list")
        return reply
