"""The tally against a deliberately naive twin, and the judge's table against the rules in words."""

from itertools import permutations, product

from hypothesis import given
from hypothesis import strategies as st

from quorumvault.model import Version
from quorumvault.protocol.quorum import Outcome, Tally
from quorumvault.protocol.read import Open, Silence, State, WriteBackNeeded, judge
from quorumvault.protocol.records import CONFLICT_MARK, header, sealed_of

DISKS = [b"disk 1", b"disk 2", b"disk 3"]
votes = st.lists(st.tuples(st.sampled_from([*DISKS, b"stranger"]), st.booleans()), max_size=8)


def dumb(cast: list[tuple[bytes, bool]]) -> Outcome:
    """The outcome, by trying every way in which the disks that have not voted could still vote."""
    first: dict[bytes, bool] = {}
    for disk, yes in cast:
        if disk in DISKS and disk not in first:
            first[disk] = yes
    open_ = [disk for disk in DISKS if disk not in first]
    ends = {sum([*first.values(), *rest]) >= 2 for rest in product([False, True], repeat=len(open_))}
    if sum(first.values()) >= 2:
        return Outcome.WON
    return Outcome.PENDING if True in ends else Outcome.LOST


@given(votes)
def test_tally_equals_its_dumb_twin(cast: list[tuple[bytes, bool]]) -> None:
    """Proves: a reply counts once."""
    tally = Tally(DISKS)
    for disk, yes in cast:
        tally.vote(disk, yes=yes)
    assert tally.outcome is dumb(cast)


def record(sealed: bytes, clock: int = 1) -> bytes:
    return header(Version(clock, 1)) + sealed


A, A_LATER, B, C = record(b"a", 5), record(b"a", 9), record(b"b", 2), record(b"c")
ABSENT, UNKNOWN, MARK = None, Silence.UNKNOWN, CONFLICT_MARK
EVERY: list[State] = [A, A_LATER, B, C, ABSENT, UNKNOWN, MARK]


def test_a_value_needs_two_and_has_the_first_writers_version() -> None:
    assert judge([A, A], 1) == A
    assert judge([A_LATER, A], 1) == A
    assert judge([A, B, A], 0) == A
    assert judge([A, UNKNOWN, A], 0) == A
    assert judge([A, MARK, A], 0) == A


def test_not_found_needs_two_that_say_absent() -> None:
    assert judge([ABSENT, ABSENT], 1) is None
    assert judge([ABSENT, UNKNOWN], 1) is Open.UNDECIDED
    assert judge([ABSENT, UNKNOWN], 0) is Open.UNAVAILABLE
    assert judge([ABSENT, ABSENT, MARK], 0) is Open.COLLISION


def test_one_holder_is_repaired_first() -> None:
    assert judge([A, ABSENT], 1) == WriteBackNeeded(A)
    assert judge([A, UNKNOWN], 1) is Open.UNDECIDED
    assert judge([A, UNKNOWN, ABSENT], 0) == WriteBackNeeded(A)
    assert judge([A, UNKNOWN], 0) is Open.UNAVAILABLE


def test_two_values_need_all_three() -> None:
    """Proves: a conflict never overwrites."""
    assert judge([A, B], 1) is Open.UNDECIDED
    assert judge([A, B], 0) is Open.UNAVAILABLE
    assert judge([A, B, UNKNOWN], 0) is Open.UNAVAILABLE
    assert judge([A, B, C], 0) is Open.COLLISION
    assert judge([A, B, MARK], 0) is Open.COLLISION
    assert judge([A, B, ABSENT], 0) == WriteBackNeeded(B)
    assert judge([A, MARK, ABSENT], 0) == WriteBackNeeded(A)
    assert judge([A, MARK, MARK], 0) is Open.COLLISION


def test_what_collided_cannot_have_a_value_when_one_of_the_three_is_silent_later() -> None:
    for states in product(EVERY, repeat=3):
        if judge(states, 0) is Open.COLLISION:
            for silent in range(3):
                later = judge([state for index, state in enumerate(states) if index != silent], 0)
                assert not isinstance(later, bytes | WriteBackNeeded), states


def test_order_of_answers_does_not_count() -> None:
    for states in product(EVERY, repeat=3):
        verdicts = {repr(judge(order, 0)) for order in permutations(states)}
        held = {sealed_of(s) for s in states if s in (A, A_LATER, B, C)}
        assert len(verdicts) == 1 or held == {b"a"}  # if only A and A_LATER are held, either may be written back


def test_more_answers_never_turn_a_value_into_another_one() -> None:
    for first, second, third in product(EVERY, repeat=3):
        early, late = judge([first, second], 1), judge([first, second, third], 0)
        if isinstance(early, bytes):
            assert isinstance(late, bytes)
            assert sealed_of(late) == sealed_of(early)


def test_it_is_undecided_only_while_somebody_may_still_speak() -> None:
    for count in (1, 2, 3):
        for states in product(EVERY, repeat=count):
            assert judge(states, 0) is not Open.UNDECIDED
