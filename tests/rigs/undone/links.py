"""Safeties of the connections between nodes, undone one at a time: on real links."""

from collections.abc import Callable, Collection

from quorumvault.server.peers import link
from quorumvault.server.peers.claims import Claimant, Claims
from quorumvault.server.peers.deadline import Deadline
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.standing import Standing
from tests.rigs.undone.mutant import LINKS, Mutant

_ONE_NAME = ("one process per name",)


def _welcome(self: Claims, claimant: Claimant, facts: NodeFacts) -> None:
    self._holds.setdefault(facts.node, {})[claimant] = facts
    claimant.welcome(facts)


def _release_all(self: Claims, claimant: Claimant) -> None:
    """Treats the first connection of a hold that ends as the last one."""
    self._challenges.pop(claimant, None)
    for node, hold in self._holds.items():
        if hold.pop(claimant, None) is not None:
            hold.clear()
            for challenger, challenge in tuple(self._challenges.items()):
                if challenge.facts.node == node:
                    del self._challenges[challenger]
                    self.claim(challenger, challenge.facts)


def _ask_nobody(self: Standing, others: Collection[Link]) -> None:
    self._asked = set()
    self._settle()


def _wait_for_ever(self: Deadline, seconds: float, on_silence: Callable[[], None]) -> None:
    self.cancel()


def _tick_however_late(self: link._Dialled) -> None:
    if self.facts is not None:
        self.ping()
    self._next_tick = self._loop.call_later(self._local.timeouts.ping, self._tick)


def _tell_the_link_alone(self: link._Dialled, reason: str) -> None:
    """Callers that wait for a reply hear nothing."""
    if self._next_tick is not None:
        self._next_tick.cancel()
    self._link.ended(self, reason)


MUTANTS = (
    Mutant("anyone-welcome", _ONE_NAME, "every process that greets under a name is welcome",
           ((Claims, "claim", _welcome),), LINKS, seed=1),
    Mutant("name-freed-early", _ONE_NAME, "a name is free once the first connection of its process ends",
           ((Claims, "release", _release_all),), LINKS, seed=1),
    Mutant("other-peer-unasked", _ONE_NAME, "a process votes once one peer has welcomed it",
           ((Standing, "_ask", _ask_nobody),), LINKS, seed=214),
    Mutant("silence-unnoticed", _ONE_NAME, "a silent connection is kept for ever",
           ((Deadline, "set_for_silence", _wait_for_ever),), LINKS, seed=2),
    Mutant("hung-and-goes-on", _ONE_NAME, "a process that hung for longer than its peers wait keeps links and vote",
           ((link._Dialled, "_tick", _tick_however_late),),
           tests=("tests/peers/test_link.py::test_a_process_that_was_held_up_ends_its_links_though_bytes_have_come_meanwhile",)),
    Mutant("end-untold", ("unknown is an outcome",), "requests under way are not told that their connection has ended",
           ((link._Dialled, "ended", _tell_the_link_alone),), LINKS, seed=2),
)  # fmt: skip
