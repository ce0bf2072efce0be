"""The read rounds: a value is returned if two replicas hold it, "not found" if two replicas say absent.

If one replica holds a record and another lacks it, the record must be written to the second replica before it may be returned
(read_repair.py); the round says which record, and to which disk. If replicas hold different bytes, all three must answer.
``judge`` has all the cases.

A value that this node's own replica knows to be settled needs no second replica (SettledRound).

Rules kept here: read repair before the answer; not found needs two; a conflict never overwrites; settled records.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from quorumvault.model import QUORUM, REPLICAS
from quorumvault.protocol.messages import Holds, RoundId, Settled
from quorumvault.protocol.quorum import Outcome
from quorumvault.protocol.records import CONFLICT_MARK, holds_value, sealed_of
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import View, ViewId


class Silence(Enum):
    """A replica's answer for a key that it cannot read: neither a record nor absent (None)."""

    UNKNOWN = "unknown"


class Open(Enum):
    """The reason why a key has no answer."""

    UNDECIDED = "undecided"  # a replica that has not answered could decide
    UNAVAILABLE = "unavailable"
    COLLISION = "collision"


@dataclass(frozen=True, slots=True)
class WriteBackNeeded:
    """This record is the answer once a replica that said absent has it too."""

    record: bytes


#: One replica's answer for a key: a record, None for absent, or UNKNOWN.
State = bytes | Silence | None
#: The answer for a key: its record, None for not found, why there is no answer, or the write-back needed first.
Verdict = bytes | Open | WriteBackNeeded | None


def judge(states: Sequence[State], pending: int) -> Verdict:
    """Judge one key by the answers of up to three replicas, while ``pending`` others may still answer.

    A conflict mark is neither a value nor absent. If the answers have two values, or a mark, and no value has two votes, the
    verdict needs all three replicas.
    """
    values = [state for state in states if isinstance(state, bytes) and holds_value(state)]
    votes = Counter(map(sealed_of, values))
    marked = CONFLICT_MARK in states
    absent = states.count(None)
    if votes and max(votes.values()) >= QUORUM:
        winner = max(votes, key=votes.__getitem__)
        return min(value for value in values if sealed_of(value) == winner)
    if absent >= QUORUM and not marked:
        return None
    contested = marked or len(votes) > 1
    if values and absent and not contested:
        return WriteBackNeeded(values[0])
    if pending:
        return Open.UNDECIDED
    if not contested or Silence.UNKNOWN in states or len(states) < REPLICAS:
        return Open.UNAVAILABLE
    if absent and values:
        return WriteBackNeeded(min(values))
    # No value can ever be on two of these disks, so the collision is final.
    return Open.COLLISION


@dataclass(frozen=True, slots=True)
class ReadResult:
    """``records`` in the order of the keys: a record, None for not found, or why there is no answer (UNAVAILABLE, COLLISION).

    ``repairs`` maps a disk to the indices of the records that it lacks. These records may be used only after that disk has them,
    in the same view.
    """

    view: ViewId
    records: list[bytes | Open | None]
    repairs: dict[bytes, list[int]]


@dataclass(frozen=True, slots=True)
class SettledRead:
    """For each key the settled record that ``disk`` has, or None. ``current``: its vote that the fence lets the batch pass.

    The vote counts in ``view`` alone.
    """

    disk: bytes
    view: ViewId
    records: list[bytes | None]
    current: bool


class SettledRound(Round[Settled, SettledRead]):
    """Decides a GetSettled of ``count`` keys to one disk."""

    _kind = Settled

    def __init__(self, round_id: RoundId, view: View, count: int, disk: bytes) -> None:
        super().__init__(round_id, view, disks=(disk,), needed=1)
        self._disk = disk
        self._count = count

    def _accepts(self, reply: Settled) -> bool:
        return len(reply.records) == self._count

    def _decision(self) -> SettledRead | None:
        if not self._replies:
            return None
        (told,) = self._replies
        return SettledRead(self._disk, self.view.id, told.records, told.current)


class ReadRound(Round[Holds, ReadResult]):
    """Decides a Get of ``count`` keys. ``authentic(index, record)`` is False if the bytes are not a value sealed for that key.

    ``without``: disks that take no part, because they did not accept the records that they lack.
    """

    _kind = Holds

    def __init__(
        self,
        round_id: RoundId,
        view: View,
        count: int,
        authentic: Callable[[int, bytes], bool],
        *,
        without: Collection[bytes] = (),
    ) -> None:
        super().__init__(round_id, view, disks=[disk for disk in view.disks.values() if disk not in without])
        self._count = count
        self._authentic = authentic

    def _accepts(self, reply: Holds) -> bool:
        return len(reply.records) == self._count and all(0 <= index < self._count for index in reply.unknown)

    def _decision(self) -> ReadResult | None:
        if self._tally.outcome is not Outcome.WON:
            return None
        first, *others = self._replies
        # The common case, in a few steps whatever the size of the batch: all replies are equal, and none has a conflict mark.
        alike = all(first.records == other.records and not (first.unknown or other.unknown) for other in others)
        if alike and CONFLICT_MARK not in first.records:
            return ReadResult(self.view.id, list(first.records), {})
        return self._judge_each()

    def _judge_each(self) -> ReadResult | None:
        columns = {reply.disk: self._states(reply) for reply in self._replies}
        records: list[bytes | Open | None] = []
        repairs: dict[bytes, list[int]] = {}
        for index, states in enumerate(zip(*columns.values(), strict=True)):
            verdict = judge(states, self._tally.pending)
            if isinstance(verdict, bytes) or verdict is None:
                records.append(verdict)
                continue
            verdict = judge([self._trusted(index, state) for state in states], self._tally.pending)
            if verdict is Open.UNDECIDED:
                return None
            if isinstance(verdict, WriteBackNeeded):
                lacking = next(disk for disk, states in columns.items() if states[index] is None)
                repairs.setdefault(lacking, []).append(index)
                verdict = verdict.record
            records.append(verdict)
        return ReadResult(self.view.id, records, repairs)

    @staticmethod
    def _states(answer: Holds) -> list[State]:
        states: list[State] = list(answer.records)
        for index in answer.unknown:
            states[index] = Silence.UNKNOWN
        return states

    def _trusted(self, index: int, state: State) -> State:
        if isinstance(state, bytes) and state != CONFLICT_MARK and not self._authentic(index, state):
            return Silence.UNKNOWN
        return state
