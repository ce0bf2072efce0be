"""The epoch is a max-register: how a round reads an owner's active epoch, and how one raises it.

A register only grows, so the largest of two replicas' answers is at least what any finished write left behind; it is written back
to two before it is used, so that no later reader sees less (Aspnes, Attiya, Censor 2009, over majorities as in
Attiya, Bar-Noy, Dolev 1995). Epoch 0 is a register that was never written and stands for the first epoch.

Rules kept here: the epoch is a max-register.
"""

from __future__ import annotations

from dataclasses import dataclass

from quorumvault.model import FIRST_EPOCH
from quorumvault.protocol.fence import Register
from quorumvault.protocol.messages import Ack, AnyReply, EpochIs, RoundId
from quorumvault.protocol.quorum import Outcome
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import View


@dataclass(frozen=True, slots=True)
class EpochRead:
    """The largest of two answers. Unless ``settled`` (both said the same), it has to be written back before use."""

    register: Register
    settled: bool


class EpochRound(Round[EpochRead]):
    """Decides a ReadEpoch."""

    def __init__(self, round_id: RoundId, view: View) -> None:
        super().__init__(round_id, view)
        self._answers: list[Register] = []

    def _accepts(self, reply: AnyReply) -> bool:
        return isinstance(reply, EpochIs)

    def _take(self, reply: AnyReply) -> None:
        if isinstance(reply, EpochIs):
            self._answers.append(Register(reply.epoch, reply.secret))

    def _decision(self) -> EpochRead | None:
        if self._tally.outcome is not Outcome.WON:
            return None
        largest = max(self._answers)
        settled = all(answer == largest for answer in self._answers)
        if largest.epoch < FIRST_EPOCH:
            return EpochRead(Register(FIRST_EPOCH, ""), settled=True)
        return EpochRead(largest, settled)


@dataclass(frozen=True, slots=True)
class Raised:
    """Two replicas' registers are at least what was asked for."""


class RaiseRound(Round[Raised]):
    """Decides a RaiseEpoch."""

    def _accepts(self, reply: AnyReply) -> bool:
        return isinstance(reply, Ack)

    def _decision(self) -> Raised | None:
        return Raised() if self._tally.outcome is Outcome.WON else None
