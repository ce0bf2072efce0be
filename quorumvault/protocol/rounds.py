"""A round: one exchange with the replicas of one view. Replies go in, at most one decision comes out.

What is common to all rounds is here: a reply counts only if it names this round and this view, comes from a disk that the view
lists, and is the first of that disk. The kinds of rounds are in write.py, read.py, read_repair.py and epochs.py.

Rules kept here: a reply counts once; unknown is an outcome; a refused round starts again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from quorumvault.model import QUORUM
from quorumvault.protocol.messages import AnyReply, NotVoting, OtherView, Overflow, RoundId
from quorumvault.protocol.quorum import Outcome, Tally
from quorumvault.protocol.views import View

DecisionT = TypeVar("DecisionT")


@dataclass(frozen=True, slots=True)
class Lost:
    """A quorum can no longer be had in this round. It may have written all the same."""


@dataclass(frozen=True, slots=True)
class ViewRefused:
    """A replica is in a newer view: learn it, and start again with nothing carried over."""

    view: View


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The records that were asked for do not fit into one reply."""


class Round(ABC, Generic[DecisionT]):
    """Takes replies, and the disks that will not reply; returns None until it has decided, and then its decision.

    ``disks`` narrows the round to some of the view's disks, ``needed`` the number of them that makes a quorum.
    """

    def __init__(self, round_id: RoundId, view: View, *, disks: Collection[bytes] | None = None, needed: int = QUORUM) -> None:
        self.id = round_id
        self.view = view
        self._tally = Tally(view.disks.values() if disks is None else disks, needed)

    def receive(self, reply: AnyReply) -> DecisionT | Lost | ViewRefused | TooMuch | None:
        if reply.round != self.id:
            return None
        if isinstance(reply, OtherView) and reply.current.id > self.view.id:
            return ViewRefused(reply.current)
        if isinstance(reply, OtherView | NotVoting):
            return self.give_up(reply.disk)
        if reply.view != self.view.id:
            return None
        if isinstance(reply, Overflow):
            return TooMuch()
        if not self._tally.vote(reply.disk, yes=self._accepts(reply)):
            return None
        self._take(reply)
        return self._decide()

    def give_up(self, disk: bytes) -> DecisionT | Lost | None:
        """This disk will not answer: unreachable, joining, in an older view, or too late."""
        return self._decide() if self._tally.vote(disk, yes=False) else None

    def _decide(self) -> DecisionT | Lost | None:
        decision = self._decision()
        if decision is not None:
            return decision
        if self._tally.outcome is Outcome.LOST or not self._tally.pending:
            return Lost()
        return None

    @abstractmethod
    def _accepts(self, reply: AnyReply) -> bool:
        """True for a reply of the kind that makes this round's quorum."""

    def _take(self, reply: AnyReply) -> None:
        """Keep what a counted reply says. An Ack that refuses nothing says all by being counted."""

    @abstractmethod
    def _decision(self) -> DecisionT | None:
        """The decision that follows from the replies taken so far, or None. ``self._tally.pending`` replicas may still reply."""
