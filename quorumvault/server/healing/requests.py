"""One request to one replica, awaited; and work on the storage thread, awaited."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from quorumvault.protocol.messages import AnyReply, AnyRequest, NotVoting, OtherView, Outgoing, RoundId
from quorumvault.protocol.peer import NoReply, OnReply, Peer
from quorumvault.protocol.views import View, ViewId
from quorumvault.server.replica.replica import Job, Replica

ResultT = TypeVar("ResultT")


class NoAnswer(Exception):
    """A replica did not answer, or not as one that is active in the view. The words are for logs and operators."""


class Storage(Protocol):
    """The storage thread (groupcommit.py), or a simulator's."""

    def submit(self, request: AnyRequest | Job, on_reply: OnReply) -> None: ...


async def on_storage_thread(storage: Storage, work: Callable[[Replica], ResultT]) -> ResultT:
    """What ``work`` returns. Raises NoAnswer if the thread has too much to do; what ``work`` raises ends the process."""
    done: asyncio.Future[ResultT | NoReply] = asyncio.get_running_loop().create_future()
    storage.submit(Job(work), lambda result: None if done.done() else done.set_result(result))  # type: ignore[arg-type]
    result = await done
    if isinstance(result, NoReply):
        raise NoAnswer("too much waits for this node's disk")
    return result


class ReplicaClient:
    """Asks single replicas, that of its own node among them. Its rounds have a nonce of their own: none is a coordinator's.

    ``view`` is the newest that this node knows; ``timeout`` in seconds.
    """

    def __init__(
        self,
        node: str,
        disk: Callable[[], bytes],
        nonce: bytes,
        peers: Mapping[str, Peer],
        view: Callable[[], View | None],
        *,
        timeout: float,
    ) -> None:
        self.node = node
        self._disk = disk
        self._nonce = nonce
        self._peers = peers
        self._view = view
        self._timeout = timeout
        self._rounds = itertools.count(1)

    @property
    def view(self) -> View | None:
        """The newest that this node knows."""
        return self._view()

    def listed(self, node: str) -> bytes | None:
        """The disk that the view lists for this node."""
        view = self._view()
        return None if view is None else view.disks[node]

    def can_ask(self, node: str) -> bool:
        return self._view() is not None and self._peers[node].up

    async def ask(self, node: str, make: Callable[[RoundId, ViewId], AnyRequest]) -> AnyReply:
        """The answer of the disk that the view lists for this node, as an active one. Raises NoAnswer."""
        return await self.send(node, make).answer()

    def send(self, node: str, make: Callable[[RoundId, ViewId], AnyRequest]) -> Asked:
        """The same, without waiting for it. Raises NoAnswer if there is no view to ask in."""
        view = self._view()
        if view is None:
            raise NoAnswer("this node knows no view")
        loop = asyncio.get_running_loop()
        request = make(RoundId(self._disk(), self._nonce, next(self._rounds)), view.id)
        asked = Asked(node, view.disks[node], request, loop.create_future())
        timer = loop.call_later(self._timeout, asked.settle, NoReply(sent=True))
        asked.settled.add_done_callback(lambda _: timer.cancel())
        self._peers[node].send(Outgoing(request), asked.settle)
        return asked


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to one replica."""

    node: str
    disk: bytes
    request: AnyRequest
    settled: asyncio.Future[AnyReply | NoReply]

    def settle(self, reply: AnyReply | NoReply) -> None:
        if not self.settled.done():
            self.settled.set_result(reply)

    async def answer(self) -> AnyReply:
        """Raises NoAnswer."""
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
