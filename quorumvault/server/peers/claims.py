"""Claims: which process holds a node's name, when two processes greet under it.

If a data directory is copied and both copies run, two processes have one disk identity. If both acknowledged a write, that one
disk would count as two. So a node talks to only one process under each name at a time, in both directions together. It turns the
other process away, which then stops.

    free       ── a process greets under the name, on whichever end ──▶ held by that process (NodeFacts.boot)
    held       ── the same process greets on another connection ──▶ held: those connections together are its hold
               ── another process greets ──▶ contested: the challenger waits, every connection of the hold is pinged
               ── the last connection of the hold ends ──▶ free
    contested  ── any pong ──▶ held: the holder lives, and the challenger is turned away
               ── the last connection of the hold ends ──▶ held by the challenger that came first

No clocks are compared: a holder that lives keeps the name. A killed process leaves no hold, because its kernel closes its
connections. A process whose host lost power, or that SIGSTOP stopped, holds its name until it has been silent for
timeouts.silence, and its successor waits that long. If the stopped process continues later, it is the challenger.

standing.py says what follows for a process when each of its two peers judges by what that peer sees.

Rules kept here: one process per name.
"""

from dataclasses import dataclass
from typing import Protocol

from quorumvault.server.peers.facts import NodeFacts

#: The number of bytes of a disk's id that messages show: enough to find the disk in the output of ``status``.
_SHOWN_BYTES = 4


class Claimant(Protocol):
    """A connection whose greeting is in order. Hashed by identity."""

    @property
    def remote(self) -> str:
        """The host at the other end."""

    @property
    def pongs(self) -> int:
        """The number of pings that the other end has answered."""

    def ping(self) -> int:
        """Send a ping. Returns its number: the ping is answered once ``pongs`` has reached it."""

    def welcome(self, facts: NodeFacts) -> None:
        """The process at the other end holds the name: the connection may be used."""

    def turn_away(self, reason: str) -> None:
        """Another live process holds the name."""


@dataclass(frozen=True, slots=True)
class _Challenge:
    """A waiting claimant. ``proofs`` maps each connection of the hold to the number of the ping whose pong proves it alive."""

    facts: NodeFacts
    proofs: dict[Claimant, int]


class Claims:
    """The claims on the names of other nodes. ``witness`` is this node. Used on the event loop's thread only."""

    def __init__(self, witness: str) -> None:
        self._witness = witness
        #: By name: the open connections of the one process that holds it.
        self._holds: dict[str, dict[Claimant, NodeFacts]] = {}
        self._challenges: dict[Claimant, _Challenge] = {}

    def claim(self, claimant: Claimant, facts: NodeFacts) -> None:
        """A process with these facts has greeted. Calls ``welcome`` or ``turn_away`` at most once, now or once it is decided."""
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
        """A pong has come in on this connection."""
        for challenger, challenge in tuple(self._challenges.items()):
            if connection in challenge.proofs and connection.pongs >= challenge.proofs[connection]:
                del self._challenges[challenger]
                held = self._holds[challenge.facts.node][connection]
                challenger.turn_away(self._taken(held, connection.remote))

    def release(self, claimant: Claimant) -> None:
        """This connection is over. If its name becomes free, it goes to the waiting claimants, in their order."""
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
