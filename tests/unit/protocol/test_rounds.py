"""Rounds: which replies count, and what they decide."""

from typing import Any

import pytest

from quorumvault.model import Version
from quorumvault.protocol.epochs import EpochRead, EpochRound, Raised, RaiseRound
from quorumvault.protocol.fence import Register, refuses
from quorumvault.protocol.messages import Ack, AnyReply, EpochIs, Holds, NotVoting, OtherView, Overflow, RoundId, Stale
from quorumvault.protocol.read import Open, ReadResult, ReadRound
from quorumvault.protocol.read_repair import Repaired, RepairRound
from quorumvault.protocol.records import CONFLICT_MARK, header
from quorumvault.protocol.rounds import Lost, Round, TooMuch, ViewRefused
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


def epoch_is(disk: bytes, epoch: int) -> EpochIs:
    return EpochIs(ROUND, VIEW.id, disk, epoch, "m1" if epoch else "")


def read(count: int = 1, *, honest: bool = True) -> ReadRound:
    return ReadRound(ROUND, VIEW, count, lambda index, record: honest)


def follow(round_: Round[Any, Any], *heard: AnyReply | bytes, decides: object) -> None:
    """Pass replies to the round, or the ids of disks that will not reply. Only the last one decides the round."""
    decisions = [round_.give_up(each) if isinstance(each, bytes) else round_.receive(each) for each in heard]
    assert decisions == [*[None] * (len(heard) - 1), decides]


def test_two_acks_commit() -> None:
    """Proves: committed."""
    follow(WriteRound(ROUND, VIEW), ack(D1), ack(D3), decides=Committed())


def test_one_disk_counts_once_whatever_it_is_called() -> None:
    """Proves: a reply counts once."""
    follow(WriteRound(ROUND, VIEW), ack(D2), ack(D2), decides=None)


def test_a_reply_to_an_earlier_try_has_no_voice() -> None:
    """Proves: a reply counts once."""
    follow(WriteRound(ROUND, VIEW), ack(D1), ack(D2, round_id=EARLIER), decides=None)


def test_a_reply_from_another_view_has_no_voice() -> None:
    """Proves: every request names its view."""
    follow(WriteRound(ROUND, VIEW), ack(D1), Ack(ROUND, (2, D2), D2, 1, 1, {}), decides=None)


def test_joining_disks_do_not_vote() -> None:
    """Proves: only active listed disks vote."""
    joining = (NotVoting(ROUND, VIEW.id, disk) for disk in (D2, D3))
    follow(WriteRound(ROUND, VIEW), ack(D1), *joining, decides=Lost())


def test_a_newer_view_ends_the_round() -> None:
    """Proves: a refused round starts again."""
    newer = View(2, D3, {"n1": D1, "n2": D2, "n3": STRANGER})
    follow(WriteRound(ROUND, VIEW), ack(D1), OtherView(ROUND, VIEW.id, D2, newer), decides=ViewRefused(newer))


def test_the_largest_of_two_has_to_be_written_back() -> None:
    """Proves: the epoch is a max-register."""
    follow(EpochRound(ROUND, VIEW), epoch_is(D1, 4), epoch_is(D3, 5), decides=EpochRead(Register(5, "m1"), settled=False))


A, B, OTHER = record(b"a"), record(b"b"), record(b"other")
NEWER = View(2, D3, VIEW.disks)
#: By name, what a write hears and what that decides.
WRITES: dict[str, tuple[list[AnyReply | bytes], object]] = {
    "a disk outside the view has no voice": ([ack(D1), ack(STRANGER)], None),
    "lost at once when it cannot be won": ([D1, D2], Lost()),
    "the fence makes it adopt": ([ack(D1), Stale(ROUND, VIEW.id, D2, 5, "m1")], Adopt(5, "m1")),
    "another value on one replica waits for the third": ([ack(D1, {0: OTHER}), ack(D2), ack(D3)], Committed()),
    "another value and a silent third is lost": ([ack(D1, {0: OTHER}), ack(D2), D3], Lost()),
    "other values on two collide": ([ack(D1, {1: OTHER}), ack(D2, {1: record(b"third")})], Committed(frozenset({1}))),
    "an unreadable record is neither": ([ack(D1, {0: b""}), ack(D2, {0: OTHER}), ack(D3, {0: OTHER})], Committed(frozenset({0}))),
}
#: By name, how many records are read, what the read hears, and what that decides.
READS: dict[str, tuple[int, list[AnyReply | bytes], object]] = {
    "two alike": (2, [holds(D1, A, None), holds(D2, A, None)], ReadResult(VIEW.id, [A, None], {})),
    "one holder is to be repaired where it lacks": (
        2, [holds(D3, None, B), holds(D1, A, None)], ReadResult(VIEW.id, [A, B], {D3: [0], D1: [1]})),
    "unknown is not absent": (
        1, [holds(D1, None, unknown=(0,)), holds(D2, None), D3], ReadResult(VIEW.id, [Open.UNAVAILABLE], {})),
    "two that cannot read it agree on nothing": (
        1, [holds(D1, None, unknown=(0,)), holds(D2, None, unknown=(0,)), holds(D3, None)],
        ReadResult(VIEW.id, [Open.UNAVAILABLE], {})),
    "a conflict mark on both is no value": (
        1, [holds(D1, CONFLICT_MARK), holds(D2, CONFLICT_MARK), holds(D3, None)], ReadResult(VIEW.id, [Open.COLLISION], {})),
    "one answer is no quorum": (1, [D1, holds(D2, None), D3], Lost()),
    "an answer of another length is none": (1, [holds(D1, None, None), holds(D2, None, unknown=(1,))], Lost()),
    "too much for one answer": (1, [Overflow(ROUND, VIEW.id, D1)], TooMuch()),
}  # fmt: skip


#: By name, what a write of nothing hears after D1's vote in the same view, and what that decides.
VOTED: dict[str, tuple[list[AnyReply | bytes], object]] = {
    "one more is enough": ([ack(D3)], Committed()),
    "its own disk is not asked twice": ([ack(D1), ack(D2)], Committed()),
    "one is silent, and the other is enough": ([D2, ack(D3)], Committed()),
    "the fence makes it adopt": ([Stale(ROUND, VIEW.id, D3, 5, "m1")], Adopt(5, "m1")),
    "alone it is lost": ([D2, D3], Lost()),
}

OLDER = OtherView(ROUND, NEWER.id, D2, VIEW)
ROUNDS: dict[str, tuple[Round[Any, Any], list[AnyReply | bytes], object]] = {
    **{f"write: {name}": (WriteRound(ROUND, VIEW), heard, decides) for name, (heard, decides) in WRITES.items()},
    **{f"vote: {name}": (WriteRound(ROUND, VIEW, D1), heard, decides) for name, (heard, decides) in VOTED.items()},
    "vote: of a disk outside the view counts for nothing": (WriteRound(ROUND, VIEW, STRANGER), [ack(D2), ack(D3)], Committed()),
    **{f"read: {name}": (read(count), heard, decides) for name, (count, heard, decides) in READS.items()},
    "rotten bytes are not spread": (
        read(honest=False), [holds(D1, record(b"rot")), holds(D2, None), holds(D3, None)], ReadResult(VIEW.id, [None], {})),
    "a replica in an older view is given up": (WriteRound(ROUND, NEWER), [OLDER, D1], Lost()),
    "a repair hears the one disk it is for": (
        RepairRound(ROUND, VIEW, D2), [ack(D1), ack(D2, {3: b"x"})], Repaired(frozenset({3}))),
    "a repair without its disk is lost": (RepairRound(ROUND, VIEW, D2), [D2], Lost()),
    "equal epochs are settled": (
        EpochRound(ROUND, VIEW), [epoch_is(D1, 4), epoch_is(D3, 4)], EpochRead(Register(4, "m1"), settled=True)),
    "an epoch never written is the first": (
        EpochRound(ROUND, VIEW), [epoch_is(D1, 0), epoch_is(D3, 0)], EpochRead(Register(1, ""), settled=True)),
    "raising needs two": (RaiseRound(ROUND, VIEW), [ack(D1), ack(D2)], Raised()),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDS)
def test_what_a_round_decides(name: str) -> None:
    round_, heard, decides = ROUNDS[name]
    follow(round_, *heard, decides=decides)


def test_a_mark_is_not_absent_though_both_others_lack_the_record() -> None:
    """Proves: not found needs two; a conflict never overwrites."""
    both = (holds(D2, None), holds(D3, None))
    follow(read(), holds(D1, CONFLICT_MARK), *both, decides=ReadResult(VIEW.id, [Open.COLLISION], {}))


def test_the_fence() -> None:
    """Proves: one secret per epoch."""
    assert refuses(Register(2, "m1"), Register(1, "m1"))
    assert not refuses(Register(1, "m1"), Register(1, "m1"))
    assert not refuses(Register(0, ""), Register(1, "m1"))
    assert not refuses(Register(1, "m1"), Register(2, "m2"))
    assert refuses(Register(1, "m1"), Register(1, "m2"))
