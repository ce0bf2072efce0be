"""One round over real peers: send, collect, hedge, give up in time. The round itself decides what the replies mean.

A Put or a RaiseEpoch goes to all three replicas at once, and the first two that suffice decide; a WriteBack goes to one. A read
goes to two, and to the third once both have replied, or cannot, without settling it, or after the hedge delay.
A reply that comes after the decision changes nothing. It only tells whether the third replica has the write too.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from quorumvault.protocol.messages import Ack, AnyReply, NotVoting, OtherView, Outgoing
from quorumvault.protocol.peer import NoReply, Peer
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.rounds import Lost, Round

StepT = TypeVar("StepT")
SentT = TypeVar("SentT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Target:
    """A replica of the round's view: the peer to ask, and the disk that has to answer."""

    peer: Peer
    disk: bytes


@dataclass(eq=False)
class Exchange:
    """Runs one round. ``trouble`` says afterwards, by node, why a replica did not take part.

    ``on_ack`` is called with the mark of each disk whose acknowledgement counts, before that decides the round.
    """

    loop: AbstractEventLoop
    round: Round[Any, Any]
    outgoing: Outgoing
    targets: Iterable[Target]
    on_ack: Callable[[bytes, Mark], None]

    def __post_init__(self) -> None:
        self._unasked: Iterator[Target] = iter(tuple(self.targets))
        self._waiting: dict[str, Target] = {}
        self._decided: Future[object] = self.loop.create_future()
        self._on_missed: Callable[[str], None] = lambda node: None
        self.trouble: dict[str, str] = {}

    async def run(self, *, first: int, hedge: float, deadline: float) -> object:
        """Ask ``first`` targets, one more when all of these have replied in vain or after ``hedge`` s; decide by ``deadline``."""
        timers = [self.loop.call_at(deadline, self._expire), self.loop.call_later(hedge, self._ask_next)]
        try:
            for _ in range(first):
                self._ask_next()
            return await self._decided
        finally:
            for timer in timers:
                timer.cancel()

    def watch_missed(self, on_missed: Callable[[str], None]) -> None:
        """After a write was decided: call ``on_missed(node)`` for every node that failed to acknowledge, now or later."""
        self._on_missed = on_missed
        for node in self.trouble:
            on_missed(node)

    def _ask_next(self) -> None:
        target = next(self._unasked, None)
        if target is None or self._decided.done():
            return
        self._waiting[target.peer.node] = target
        target.peer.send(self.outgoing, lambda reply: self._on_reply(target, reply))

    def _on_reply(self, target: Target, reply: AnyReply | NoReply) -> None:
        if self._waiting.pop(target.peer.node, None) is None:
            return
        if self._decided.done():
            self._take_late(target, reply)
            return
        if isinstance(reply, NoReply):
            self._give_up(target, "lost in mid-request" if reply.sent else "unreachable")
        elif isinstance(reply, OtherView):
            self._decide(self.round.receive(reply))
            self._give_up(target, "in another view")
        elif reply.disk != target.disk:
            self._give_up(target, "runs with a disk that the cluster does not know")
        elif isinstance(reply, NotVoting):
            self._give_up(target, "refuses writes: disk full" if reply.full else "joining, not voting yet")
        else:
            if isinstance(reply, Ack):
                self.on_ack(reply.disk, Mark(reply.incarnation, reply.sequence))
            self._decide(self.round.receive(reply))
        if not self._waiting:
            self._ask_next()

    def _take_late(self, target: Target, reply: AnyReply | NoReply) -> None:
        if not isinstance(reply, Ack):
            self.trouble[target.peer.node] = "did not acknowledge"
            self._on_missed(target.peer.node)

    def _give_up(self, target: Target, why: str) -> None:
        self.trouble[target.peer.node] = why
        self._decide(self.round.give_up(target.disk))

    def _expire(self) -> None:
        for target in (*self._waiting.values(), *self._unasked):
            self._give_up(target, "no answer in time")
        self._decide(Lost())

    def _decide(self, decision: object) -> None:
        if decision is not None and not self._decided.done():
            self._decided.set_result(decision)


async def drive(steps: Generator[StepT, SentT, ResultT], take: Callable[[StepT], Awaitable[SentT]]) -> ResultT:
    """Run a procedure to its end: each step is taken by ``take``, whose result the procedure is sent. Returns its result."""
    try:
        step = next(steps)
        while True:
            step = steps.send(await take(step))
    except StopIteration as end:
        result: ResultT = end.value
        return result
