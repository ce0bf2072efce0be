"""Which process a node is, when two say that they are it.

A data directory that was copied, with the original still there, makes two processes under one disk identity. If both
acknowledged as that disk, "two disks have it" would be true of one. So a node speaks with one process under a name at a time,
in both directions together, and turns the other one away, which then stops.

    free       ── a process greets under the name, on whichever end ──▶ held by that process (NodeFacts.boot)
    held       ── the same process greets on another connection ──▶ held: those connections together are its hold
               ── another process greets ──▶ contested: the challenger waits, every connection of the hold is pinged
               ── the last connection of the hold ends ──▶ free
    contested  ── any pong ──▶ held: the holder lives, and the challenger is turned away
               ── the last connection of the hold ends ──▶ held by the challenger that came first

Who came first is no question of clocks, and who stays does not depend on it: the holder stays if it lives. A process that was
killed leaves no hold, as its kernel closes its connections; one whose host lost power, or that was stopped by SIGSTOP, leaves
one until it has been silent for timeouts.silence, and that long its successor waits. A stopped one that goes on afterwards
finds that it is the challenger.

What this is good for, with two nodes that each judge by what they see, is said in standing.py.

Rules kept here: one process per name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from quorumvault.server.peers.facts import NodeFacts

#: Of a disk's id, in words for people: enough to find it in what ``status`` shows.
_SHOWN_BYTES = 4


class Claimant(Protocol):
    """A connection whose greeting is in order. Hashed by identity."""

    @property
    def remote(self) -> str:
        """The host at the other end."""
        ...

    @property
    def pongs(self) -> int:
        """How many pings the other end has answered so far."""
        ...

    def ping(self) -> int:
        """Sends a ping; its number. It is answered once ``pongs`` has reached that."""
        ...

    def welcome(self, facts: NodeFacts) -> None:
        """It may be used."""
        ...

    def turn_away(self, reason: str) -> None:
        """The name is another process's, which lives."""
        ...


@dataclass(frozen=True, slots=True)
class _Challenge:
    """A claimant that waits. ``proofs``: for each connection of the hold, the number of the ping that is answered if it lives."""

    facts: NodeFacts
    proofs: dict[Claimant, int]


class Claims:
    """The claims on the names of other nodes. ``witness`` is the node that judges. Used on the event loop's thread only."""

    def __init__(self, witness: str) -> None:
        self._witness = witness
        #: By name: the open connections of the one process that holds it.
        self._holds: dict[str, dict[Claimant, NodeFacts]] = {}
        self._challenges: dict[Claimant, _Challenge] = {}

    def claim(self, claimant: Claimant, facts: NodeFacts) -> None:
        """A process with these facts has greeted. Calls ``welcome`` or ``turn_away``, now or when that is known, at most once."""
        hold = self._holds.setdefault(facts.node, {})
        if all(held.boot == facts.boot for held in hold.values()):
            hold[claimant] = facts
            claimant.welcome(facts)
            for challenge in self._challenges.values():
                if challenge.facts.node == facts.node:
                    challenge.proofs[claimant] = claimant.ping()
        else:
            self._challenges[claimant] = _Challenge(facts, {connection: connection.ping() for connection in hold})

    def answered(self, connection: Claimant) -> None:
        """A pong has come in on it."""
        for challenger, challenge in tuple(self._challenges.items()):
            if connection in challenge.proofs and connection.pongs >= challenge.proofs[connection]:
                del self._challenges[challenger]
                held = self._holds[challenge.facts.node][connection]
                challenger.turn_away(self._taken(held, connection.remote))

    def release(self, claimant: Claimant) -> None:
        """It is over, whatever it was. A name that becomes free is claimed by those who wait for it."""
        self._challenges.pop(claimant, None)
        for node, hold in self._holds.items():
            if hold.pop(claimant, None) is not None and not hold:
                waiting = [challenger for challenger, challenge in self._challenges.items() if challenge.facts.node == node]
                for challenger in waiting:
                    if challenge := self._challenges.pop(challenger, None):
                        self.claim(challenger, challenge.facts)

    def _taken(self, held: NodeFacts, host: str) -> str:
        disk = held.disk[:_SHOWN_BYTES].hex()
        return f"{held.node} runs elsewhere already: its disk {disk} is live at {host}, seen by {self._witness}; stop one of them"
