"""Rounds: which replies count, and what they decide."""

from __future__ import annotations

from quorumvault.model import Version
from quorumvault.protocol.epochs import EpochRead, EpochRound, Raised, RaiseRound
from quorumvault.protocol.fence import Register, fenced
from quorumvault.protocol.messages import Ack, EpochIs, Holds, NotVoting, OtherView, Overflow, RoundId, Stale
from quorumvault.protocol.read import Open, ReadResult, ReadRound
from quorumvault.protocol.read_repair import Repaired, RepairRound
from quorumvault.protocol.records import CONFLICT_MARK, header
from quorumvault.protocol.rounds import Lost, TooMuch, ViewRefused
from quorumvault.protocol.views import View, first_view
from quorumvault.protocol.write import Adopt, Committed, WriteRound

D1, D2, D3, STRANGER = (bytes([n]) * 16 for n in (1, 2, 3, 9))
VIEW = first_view({"n1": D1, "n2": D2, "n3": D3})
ROUND = RoundId(D1, b"boot", 7)
EARLIER = RoundId(D1, b"boot", 6)


def ack(disk: bytes, refused: dict[int, bytes] | None = None, round_id: RoundId = ROUND) -> Ack:
    return Ack(round_id, VIEW.id, disk, 1, 1, refused or {})


def holds(disk: bytes, *records: bytes | None, unknown: tuple[int, ...] = ()) -> Holds:
    return Holds(ROUND, VIEW.id, disk, list(records), list(unknown))


def record(sealed: bytes, clock: int = 1) -> bytes:
    return header(Version(clock, 1)) + sealed


class TestCounting:
    def test_two_acks_commit(self) -> None:
        """Proves: committed."""
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(ack(D3)) == Committed()

    def test_one_disk_counts_once_whatever_it_is_called(self) -> None:
        """Proves: a reply counts once."""
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D2)) is None
        assert round_.receive(ack(D2)) is None

    def test_a_disk_outside_the_view_has_no_voice(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(ack(STRANGER)) is None

    def test_a_reply_to_an_earlier_try_has_no_voice(self) -> None:
        """Proves: a reply counts once."""
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(ack(D2, round_id=EARLIER)) is None

    def test_a_reply_from_another_view_has_no_voice(self) -> None:
        """Proves: every request names its view."""
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(Ack(ROUND, (2, D2), D2, 1, 1, {})) is None

    def test_joining_disks_do_not_vote(self) -> None:
        """Proves: only active listed disks vote."""
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(NotVoting(ROUND, VIEW.id, D2)) is None
        assert round_.receive(NotVoting(ROUND, VIEW.id, D3)) == Lost()

    def test_lost_at_once_when_it_cannot_be_won(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        assert round_.give_up(D1) is None
        assert round_.give_up(D2) == Lost()

    def test_a_newer_view_ends_the_round(self) -> None:
        """Proves: a refused round starts again."""
        newer = View(2, D3, {"n1": D1, "n2": D2, "n3": STRANGER})
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(OtherView(ROUND, VIEW.id, D2, newer)) == ViewRefused(newer)

    def test_a_replica_in_an_older_view_is_given_up(self) -> None:
        round_ = WriteRound(RoundId(D1, b"boot", 1), View(2, D3, VIEW.disks))
        assert round_.receive(OtherView(round_.id, round_.view.id, D2, VIEW)) is None
        assert round_.give_up(D1) == Lost()


class TestWriting:
    def test_the_fence_makes_it_adopt(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(Stale(ROUND, VIEW.id, D2, 5, "m1")) == Adopt(5, "m1")

    def test_two_acks_outweigh_nothing_that_comes_later(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        round_.receive(ack(D1))
        assert round_.receive(ack(D2)) == Committed()

    def test_another_value_on_one_replica_waits_for_the_third(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        round_.receive(ack(D1, {0: record(b"other")}))
        assert round_.receive(ack(D2)) is None
        assert round_.receive(ack(D3)) == Committed()

    def test_another_value_and_a_silent_third_is_lost(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        round_.receive(ack(D1, {0: record(b"other")}))
        assert round_.receive(ack(D2)) is None
        assert round_.give_up(D3) == Lost()

    def test_other_values_on_two_replicas_collide(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        round_.receive(ack(D1, {1: record(b"other")}))
        assert round_.receive(ack(D2, {1: record(b"third")})) == Committed(frozenset({1}))

    def test_an_unreadable_record_is_neither(self) -> None:
        round_ = WriteRound(ROUND, VIEW)
        round_.receive(ack(D1, {0: b""}))
        assert round_.receive(ack(D2, {0: record(b"other")})) is None
        assert round_.receive(ack(D3, {0: record(b"other")})) == Committed(frozenset({0}))

    def test_a_repair_hears_the_one_disk_it_is_for(self) -> None:
        round_ = RepairRound(ROUND, VIEW, D2)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(ack(D2, {3: b"x"})) == Repaired(frozenset({3}))
        assert RepairRound(ROUND, VIEW, D2).give_up(D2) == Lost()


class TestReading:
    def read(self, count: int = 1, *, honest: bool = True) -> ReadRound:
        return ReadRound(ROUND, VIEW, count, lambda index, record: honest)

    def test_two_alike(self) -> None:
        round_ = self.read(2)
        assert round_.receive(holds(D1, record(b"a"), None)) is None
        assert round_.receive(holds(D2, record(b"a"), None)) == ReadResult(VIEW.id, [record(b"a"), None], {})

    def test_one_holder_is_to_be_repaired_where_it_lacks(self) -> None:
        round_ = self.read(2)
        round_.receive(holds(D3, None, record(b"b")))
        assert round_.receive(holds(D1, record(b"a"), None)) == ReadResult(
            VIEW.id, [record(b"a"), record(b"b")], {D3: [0], D1: [1]}
        )

    def test_rotten_bytes_are_not_spread(self) -> None:
        round_ = self.read(honest=False)
        round_.receive(holds(D1, record(b"rot")))
        assert round_.receive(holds(D2, None)) is None
        assert round_.receive(holds(D3, None)) == ReadResult(VIEW.id, [None], {})

    def test_unknown_is_not_absent(self) -> None:
        round_ = self.read()
        round_.receive(holds(D1, None, unknown=(0,)))
        assert round_.receive(holds(D2, None)) is None
        assert round_.give_up(D3) == ReadResult(VIEW.id, [Open.UNAVAILABLE], {})

    def test_two_that_cannot_read_it_agree_on_nothing(self) -> None:
        round_ = self.read()
        round_.receive(holds(D1, None, unknown=(0,)))
        assert round_.receive(holds(D2, None, unknown=(0,))) is None
        assert round_.receive(holds(D3, None)) == ReadResult(VIEW.id, [Open.UNAVAILABLE], {})

    def test_a_conflict_mark_on_both_is_no_value(self) -> None:
        round_ = self.read()
        round_.receive(holds(D1, CONFLICT_MARK))
        assert round_.receive(holds(D2, CONFLICT_MARK)) is None
        assert round_.receive(holds(D3, None)) == ReadResult(VIEW.id, [Open.COLLISION], {})

    def test_one_answer_is_no_quorum(self) -> None:
        round_ = self.read()
        round_.give_up(D1)
        assert round_.receive(holds(D2, None)) is None
        assert round_.give_up(D3) == Lost()

    def test_an_answer_of_another_length_is_none(self) -> None:
        round_ = self.read()
        assert round_.receive(holds(D1, None, None)) is None
        assert round_.receive(holds(D2, None, unknown=(1,))) == Lost()

    def test_too_much_for_one_answer(self) -> None:
        assert self.read().receive(Overflow(ROUND, VIEW.id, D1)) == TooMuch()


class TestEpochs:
    def epoch_is(self, disk: bytes, epoch: int) -> EpochIs:
        return EpochIs(ROUND, VIEW.id, disk, epoch, "m1" if epoch else "")

    def test_equal_answers_are_settled(self) -> None:
        round_ = EpochRound(ROUND, VIEW)
        round_.receive(self.epoch_is(D1, 4))
        assert round_.receive(self.epoch_is(D3, 4)) == EpochRead(Register(4, "m1"), settled=True)

    def test_the_largest_of_two_has_to_be_written_back(self) -> None:
        """Proves: the epoch is a max-register."""
        round_ = EpochRound(ROUND, VIEW)
        round_.receive(self.epoch_is(D1, 4))
        assert round_.receive(self.epoch_is(D3, 5)) == EpochRead(Register(5, "m1"), settled=False)

    def test_a_register_never_written_is_the_first_epoch(self) -> None:
        round_ = EpochRound(ROUND, VIEW)
        round_.receive(self.epoch_is(D1, 0))
        assert round_.receive(self.epoch_is(D3, 0)) == EpochRead(Register(1, ""), settled=True)

    def test_raising_needs_two(self) -> None:
        round_ = RaiseRound(ROUND, VIEW)
        assert round_.receive(ack(D1)) is None
        assert round_.receive(ack(D2)) == Raised()

    def test_the_fence(self) -> None:
        """Proves: one secret per epoch."""
        assert fenced(Register(2, "m1"), Register(1, "m1"))
        assert not fenced(Register(1, "m1"), Register(1, "m1"))
        assert not fenced(Register(0, ""), Register(1, "m1"))
        assert not fenced(Register(1, "m1"), Register(2, "m2"))
        assert fenced(Register(1, "m1"), Register(1, "m2"))
