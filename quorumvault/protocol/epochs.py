"""The epoch is a max-register: how a round reads an owner's active epoch, and how a round raises it.

A register only grows, so the larger of two replicas' answers is at least as large as what any finished write left behind. The
coordinator writes that value back to two replicas before it uses it, so that no later reader sees a smaller one (Aspnes, Attiya,
Censor 2009, over majorities as in Attiya, Bar-Noy, Dolev 1995). Epoch 0 means a register that was never written, and stands for
the first epoch.

Rules kept here: the epoch is a max-register.
"""

from dataclasses import dataclass

from quorumvault.model import FIRST_EPOCH
from quorumvault.protocol.fence import Register
from quorumvault.protocol.messages import Ack, EpochIs
from quorumvault.protocol.quorum import Outcome
from quorumvault.protocol.rounds import Round


@dataclass(frozen=True, slots=True)
class EpochRead:
    """The larger of two answers. Unless ``settled`` (the answers were equal), it has to be written back before use."""

    register: Register
    settled: bool


class EpochRound(Round[EpochIs, EpochRead]):
    """Decides a ReadEpoch."""

    _kind = EpochIs

    def _decision(self) -> EpochRead | None:
        if self._tally.outcome is not Outcome.WON:
            return None
        answers = {Register(reply.epoch, reply.secret) for reply in self._replies}
        largest = max(answers)
        if largest.epoch < FIRST_EPOCH:
            return EpochRead(Register(FIRST_EPOCH, ""), settled=True)
        return EpochRead(largest, settled=len(answers) == 1)


@dataclass(frozen=True, slots=True)
class Raised:
    """Two replicas' registers are at least as large as the request asked for."""


class RaiseRound(Round[Ack, Raised]):
    """Decides a RaiseEpoch."""

    _kind = Ack

    def _decision(self) -> Raised | None:
        return Raised() if self._tally.outcome is Outcome.WON else None
