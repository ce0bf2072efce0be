"""Rules that links have to keep, whatever faults happen.

one process     a node speaks with one process under each name, on all its connections together; of two processes of one
                name at most one votes together with others
sent away       a process is sent away only if another process of its name ran beside it
heard once      each request gets one reply, or is known once to have none
used again      between two processes that run, over a network that works, a link comes up within a bound, and both processes vote
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from chaos.testbed.violation import Violation
from quorumvault.config.limits import Timeouts
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.messages import AnyReply
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.peers.connection import Connection
from quorumvault.server.peers.connection_state import State
from tests.simulation.streams import End, Loop, StreamNetwork

if TYPE_CHECKING:
    from tests.simulation.links import LinkedProcess
    from tests.simulation.world import World

#: Seconds between two checks of what has to happen in time.
_LOOK: Final = 0.25
#: Seconds by which a healthy link may come up later than its deadlines say: for segments and the steps between them.
_SLACK: Final = 1.5

Pair = tuple["LinkedProcess", "LinkedProcess"]


class LinkRules:
    """Each method raises Violation if a rule is broken."""

    def __init__(self, timeouts: Timeouts) -> None:
        #: First a dead connection is noticed; then a present attempt is given up (connection.py waits for both); then a new dial.
        self.bound = timeouts.silence + (timeouts.handshake + timeouts.silence) + timeouts.reconnect_last + _SLACK
        self._processes: dict[LinkedProcess, None] = {}
        #: Whether another process of the same name ran at some time of the process's life.
        self._beside: dict[LinkedProcess, bool] = {}
        self._healthy: dict[Pair, float] = {}
        self._waiting: dict[Heard, None] = {}

    def watch(self, world: World) -> None:
        assert isinstance(world.network, StreamNetwork)
        self._network, self._timeline = world.network, world.timeline
        self._look_in_time()

    def began(self, process: LinkedProcess) -> None:
        others = [other for other in self._processes if other.node is process.node]
        self._beside[process] = bool(others)
        self._beside.update(dict.fromkeys(others, True))
        self._processes[process] = None

    def ended(self, process: LinkedProcess) -> None:
        self._processes.pop(process, None)
        self._healthy = {pair: since for pair, since in self._healthy.items() if process not in pair}
        self._waiting = {heard: None for heard in self._waiting if heard.process is not process}

    # One process.

    def sent_away(self, process: LinkedProcess) -> None:
        if not self._beside[process]:
            raise Violation("sent away", f"{process.node.name} is sent away, and no other process has its name")

    def message(self, process: LinkedProcess) -> None:
        """The process takes a message: all its open connections to one name have to lead to one process."""
        of: dict[str, Loop] = {}
        for end in self._open(process.schedule):
            there = end.other.loop
            if of.setdefault(there.host, there) is not there:
                raise Violation("one process", f"{process.node.name} speaks with two processes of the name {there.host}")

    def look(self) -> None:
        """Of two processes of one name, at most one may have a vote that counts together with another node's."""
        for name in NODE_NAMES:
            those = [process for process in self._processes if process.node.name == name]
            if len(those) > 1 and sum(self._partners(process) for process in those) > 1:
                raise Violation("one process", f"two processes vote as {name}")

    def _partners(self, process: LinkedProcess) -> bool:
        """Whether the process votes together with others. Who stands still does not vote, neither this process nor another."""
        runs = not process.schedule.stopped
        return runs and process.established and any(self._joined(end) for end in self._open(process.schedule))

    def _open(self, loop: Loop) -> Iterator[End]:
        for end in self._network.of(loop):
            if end.open and isinstance(end.protocol, Connection) and end.protocol.state is State.OPEN:
                yield end

    def _joined(self, end: End) -> bool:
        there = end.other.protocol
        cut = self._network.has_cut(end.wire) or self._network.has_cut(end.other.wire)
        whole = end.has_path and end.other.has_path and not cut
        runs = not end.other.loop.stopped
        return whole and runs and end.other.open and isinstance(there, Connection) and there.state is State.OPEN

    # Heard once.

    def asked(self, heard: Heard) -> None:
        self._waiting[heard] = None

    def heard(self, heard: Heard, reply: AnyReply | NoReply) -> None:
        if heard not in self._waiting:
            raise Violation("heard once", f"{heard.process.node.name} hears twice of what it asked {heard.node}")
        del self._waiting[heard]
        if not isinstance(reply, NoReply):
            self.message(heard.process)

    # Used again.

    def disturbed(self) -> None:
        """Connections were disturbed; it takes time to notice that."""
        self._healthy.clear()

    def _look_in_time(self) -> None:
        now = self._timeline.now
        for pair in self._pairs():
            if not self._well(pair):
                self._healthy.pop(pair, None)
            elif self._up(pair):
                self._healthy[pair] = now
            elif now - self._healthy.setdefault(pair, now) > self.bound:
                names = f"{pair[0].node.name} to {pair[1].node.name}"
                raise Violation("used again", f"no use of the link from {names} for {now - self._healthy[pair]:.1f} s in calm")
        self.look()
        self._timeline.at(now + _LOOK, None, self._look_in_time)

    def _pairs(self) -> Iterator[Pair]:
        processes = list(self._processes)
        return ((one, other) for one in processes for other in processes if one.node is not other.node)

    def _well(self, pair: Pair) -> bool:
        names = pair[0].node.name, pair[1].node.name
        cut = self._network.has_cut(names) or self._network.has_cut((names[1], names[0]))
        runs = all(process.schedule.alive and not process.schedule.stopped and not process.leaving for process in pair)
        return runs and not cut and not self._network.lose and not any(process.node.left_behind for process in pair)

    def _up(self, pair: Pair) -> bool:
        link = pair[0].links[pair[1].node.name]
        return link.up and pair[0].established

    def check(self) -> None:
        """In calm: all running processes are linked, and every request has had its reply."""
        for pair in self._pairs():
            if not self._up(pair):
                raise Violation("used again", f"in calm {pair[0].node.name} has no link to {pair[1].node.name}, or no vote")
        now = self._timeline.now
        for heard in self._waiting:
            if now - heard.at > self.bound:
                raise Violation("heard once", f"{heard.process.node.name} has heard nothing of what it asked {heard.node}")


class Heard:
    """The callback of one request."""

    def __init__(self, rules: LinkRules, process: LinkedProcess, node: str, on_reply: OnReply) -> None:
        self.process, self.node, self.at = process, node, process.node.timeline.now
        self._rules, self._on_reply = rules, on_reply
        rules.asked(self)

    def __call__(self, reply: AnyReply | NoReply) -> None:
        self._rules.heard(self, reply)
        self._on_reply(reply)
