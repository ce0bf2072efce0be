"""One round over real peers: send, collect, hedge, give up in time. The round itself decides what the replies mean.

A Put or a RaiseEpoch goes to all three replicas at once, and the first two that suffice decide; a WriteBack goes to one replica.
A read goes to two replicas, and a check of the fence to one, after the own replica's vote. They go to the next replica as soon as
one cannot reply, all have replied without settling the round, or its Patience ends (hedging.py, fence_checks.py). A read of a
single replica is given up if that replica hangs.

A reply after the decision changes nothing. It only tells whether the third replica has the write too.
"""

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from quorumvault.protocol.messages import Ack, AnyReply, NotVoting, OtherView, Outgoing
from quorumvault.protocol.peer import NoReply, Peer
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.rounds import Lost, Round

StepT = TypeVar("StepT")
SentT = TypeVar("SentT")
ResultT = TypeVar("ResultT")


class Patience(Protocol):
    """How long a round waits for the replicas that it asked first, in seconds by the event loop's clock.

    ``wait``: from the round's begin until it is overdue, and again after that.
    """

    wait: float

    def answered(self, node: str, now: float) -> None:
        """Note that a replica has answered, before or after the decision."""

    def refused(self, node: str, now: float) -> None:
        """Note that a replica cannot take part: it could not be reached, is joining, or is in another view."""

    def overdue(self, awaited: Collection[str], third: str, now: float) -> bool:
        """The wait is over, and the ``awaited`` replicas have not answered. Returns True if the third should be asked."""

    def hangs(self, node: str, now: float) -> bool:
        """A wait is over, and the one replica that was asked has not answered. Returns True if the round should give it up."""

    def decided(self, now: float) -> None:
        """Note that the round is decided."""


@dataclass(frozen=True, slots=True)
class Target:
    """A replica of the round's view: the peer to ask, and the disk that must answer."""

    peer: Peer
    disk: bytes


@dataclass(eq=False)
class Exchange:
    """Runs one round. Afterwards ``trouble`` says by node why a replica took no part, and ``behind`` whether a replica has yet to
    enter the round's view.

    ``on_ack`` is called with the mark of each disk whose acknowledgement counts, before the acknowledgement decides the round.
    ``patience``: how long the round waits for slow replicas; None for rounds that ask all their targets at once.
    """

    loop: AbstractEventLoop
    round: Round[Any, Any]
    outgoing: Outgoing
    targets: Sequence[Target]
    on_ack: Callable[[bytes, Mark], None]
    patience: Patience | None = None

    def __post_init__(self) -> None:
        self._asked = 0
        self._alone = len(self.targets) == 1
        self._waiting: dict[str, Target] = {}
        self._decided: Future[object] = self.loop.create_future()
        self._on_missed: Callable[[str], None] = lambda node: None
        self._on_left_over: Callable[[], None] = lambda: None
        self._may_have_written = False
        self.trouble: dict[str, str] = {}
        self.behind = False

    async def run(self, *, first: int, deadline: float) -> object:
        """Ask the first ``first`` targets, and the others if these do not decide. Decides by ``deadline``."""
        self._timer = self._next_timer(deadline)
        try:
            for _ in range(first):
                self._ask_next()
            return await self._decided
        finally:
            self._timer.cancel()

    def _next_timer(self, deadline: float) -> TimerHandle:
        """Make the next timer; there is one at a time, because most rounds are decided long before and a timer is costly."""
        if self.patience is not None and (self._alone or self._asked < len(self.targets)):
            overdue = self.loop.time() + self.patience.wait
            if overdue < deadline:
                return self.loop.call_at(overdue, self._overdue, self.patience, deadline)
        return self.loop.call_at(deadline, self._expire)

    def watch_missed(self, on_missed: Callable[[str], None]) -> None:
        """After a write was decided: call ``on_missed(node)``, now or later, for every node that fails to acknowledge it."""
        self._on_missed = on_missed
        for node in self.trouble:
            on_missed(node)

    def watch_left_over(self, on_left_over: Callable[[], None]) -> None:
        """After a write was not committed: call ``on_left_over()``, now or later, once a replica has written it or may have."""
        self._on_left_over = on_left_over
        if self._may_have_written:
            on_left_over()

    def _ask_next(self) -> None:
        if self._asked == len(self.targets) or self._decided.done():
            return
        target = self.targets[self._asked]
        self._asked += 1
        self._waiting[target.peer.node] = target
        target.peer.send(self.outgoing, lambda reply: self._on_reply(target, reply))

    def _overdue(self, patience: Patience, deadline: float) -> None:
        if self._asked < len(self.targets):
            third = self.targets[self._asked].peer
            if third.up and patience.overdue(tuple(self._waiting), third.node, self.loop.time()):
                self._ask_next()
        elif self._alone and patience.hangs(self.targets[0].peer.node, self.loop.time()):
            self._expire()
            return
        self._timer = self._next_timer(deadline)

    def _on_reply(self, target: Target, reply: AnyReply | NoReply) -> None:
        if self._waiting.pop(target.peer.node, None) is None:
            return
        self._time(target, reply)
        if isinstance(reply, Ack) or (isinstance(reply, NoReply) and reply.sent):
            self._may_have_written = True
            self._on_left_over()
        if self._decided.done():
            self._take_late(target, reply)
            return
        if isinstance(reply, NoReply):
            self._give_up(target, "lost in mid-request" if reply.sent else "unreachable")
        elif isinstance(reply, OtherView):
            self._decide(self.round.receive(reply))
            self.behind = self.behind or reply.current.id < self.round.view.id
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

    def _time(self, target: Target, reply: AnyReply | NoReply) -> None:
        if self.patience is None:
            return
        if isinstance(reply, NoReply | OtherView | NotVoting) or reply.disk != target.disk:
            self.patience.refused(target.peer.node, self.loop.time())
        else:
            self.patience.answered(target.peer.node, self.loop.time())

    def _take_late(self, target: Target, reply: AnyReply | NoReply) -> None:
        if not isinstance(reply, Ack):
            self.trouble[target.peer.node] = "did not acknowledge"
            self._on_missed(target.peer.node)

    def _give_up(self, target: Target, why: str) -> None:
        self.trouble[target.peer.node] = why
        self._decide(self.round.give_up(target.disk))
        self._ask_next()

    def _expire(self) -> None:
        unasked = self.targets[self._asked :]
        self._asked = len(self.targets)
        for target in (*self._waiting.values(), *unasked):
            self._give_up(target, "no answer in time")
        self._decide(Lost())

    def _decide(self, decision: object) -> None:
        if decision is not None and not self._decided.done():
            self._decided.set_result(decision)
            if self.patience is not None:
                self.patience.decided(self.loop.time())


async def drive(steps: Generator[StepT, SentT, ResultT], take: Callable[[StepT], Awaitable[SentT]]) -> ResultT:
    """Run a procedure to its end: ``take`` carries out each step, and its result is sent to the procedure. Returns its result."""
    try:
        step = next(steps)
        while True:
            step = steps.send(await take(step))
    except StopIteration as end:
        result: ResultT = end.value
        return result
