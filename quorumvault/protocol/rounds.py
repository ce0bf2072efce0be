"""A round: one exchange with the replicas of one view. Replies go in, at most one decision comes out.

This module has the rules common to all rounds: a reply counts only if it names this round and this view, comes from a disk that
the view lists, and is that disk's first reply. The kinds of rounds are in write.py, read.py, read_repair.py and epochs.py.

Rules kept here: a reply counts once; unknown is an outcome; a refused round starts again.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from quorumvault.model import QUORUM
from quorumvault.protocol.messages import AnyReply, NotVoting, OtherView, Overflow, Reply, RoundId
from quorumvault.protocol.quorum import Outcome, Tally
from quorumvault.protocol.views import View

ReplyT = TypeVar("ReplyT", bound=Reply)
DecisionT = TypeVar("DecisionT")


@dataclass(frozen=True, slots=True)
class Lost:
    """A quorum is out of reach in this round. The round may have written all the same."""


@dataclass(frozen=True, slots=True)
class ViewRefused:
    """A replica is in a newer view: learn that view, and start again with nothing carried over."""

    view: View


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The requested records do not fit into one reply."""


class Round(ABC, Generic[ReplyT, DecisionT]):
    """Takes replies, and the disks that will not reply; returns None until it has decided, and then its decision.

    ``disks`` narrows the round to some of the view's disks; ``needed`` of them make a quorum. ``_replies`` has the replies that
    count towards the quorum.
    """

    #: The kind of reply that makes this round's quorum.
    _kind: type[ReplyT]

    def __init__(self, round_id: RoundId, view: View, *, disks: Collection[bytes] | None = None, needed: int = QUORUM) -> None:
        self.id = round_id
        self.view = view
        self.needed = needed
        self._replies: list[ReplyT] = []
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
        accepted = isinstance(reply, self._kind) and self._accepts(reply)
        if not self._tally.vote(reply.disk, yes=accepted):
            return None
        if isinstance(reply, self._kind) and accepted:
            self._replies.append(reply)
        else:
            self._note_refusal(reply)
        return self._decide()

    def give_up(self, disk: bytes) -> DecisionT | Lost | None:
        """Note that this disk will not answer: it is unreachable, joining, in an older view, or too late."""
        return self._decide() if self._tally.vote(disk, yes=False) else None

    def _decide(self) -> DecisionT | Lost | None:
        decision = self._decision()
        if decision is not None:
            return decision
        if self._tally.outcome is Outcome.LOST or not self._tally.pending:
            return Lost()
        return None

    def _accepts(self, reply: ReplyT) -> bool:
        """True if a reply of the right kind answers the request."""
        return True

    def _note_refusal(self, reply: AnyReply) -> None:
        """Note a counted reply that does not make the quorum."""

    @abstractmethod
    def _decision(self) -> DecisionT | None:
        """The decision that follows from the replies so far, or None. ``self._tally.pending`` replicas may still reply."""
