"""Rollback marks: a disk is found out if it forgot something that another node remembers, and only then."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from quorumvault.protocol.rollback_marks import NO_MARK, Mark, contradicts, grown

MARKS = st.builds(Mark, st.integers(0, 9), st.integers(0, 9))


@dataclass
class Disk:
    """A disk over time: what it holds, what others remember of it, and the copies that were taken of it."""

    incarnation: int = 0
    sequence: int = 0
    start: Mark = NO_MARK
    remembered: Mark = NO_MARK
    copies: list[Mark] = field(default_factory=list)

    def live(self, steps: list[str]) -> None:
        self.boot()
        for step in steps:
            match step:
                case "boot":
                    self.boot()
                case "acknowledged":
                    self.sequence += 1
                    self.remembered = grown(self.remembered, Mark(self.incarnation, self.sequence))
                case "unheard":
                    self.sequence += 1

    def boot(self) -> None:
        self.incarnation += 1
        self.start = Mark(self.incarnation, self.sequence)

    @property
    def found_out(self) -> bool:
        return contradicts(self.remembered, self.start, self.sequence)


STEPS = st.lists(st.sampled_from(["boot", "acknowledged", "unheard"]), max_size=30)


@given(STEPS)
def test_a_disk_that_forgot_nothing_is_never_found_out(steps: list[str]) -> None:
    """Proves: rollback marks."""
    disk = Disk()
    disk.live(steps)
    assert not disk.found_out
    disk.boot()
    assert not disk.found_out


@given(STEPS, STEPS)
def test_a_disk_put_back_is_found_out_when_it_starts_if_an_acknowledgement_that_counted_is_gone(
    before: list[str], gone: list[str]
) -> None:
    disk = Disk()
    disk.live(before)
    copy = Mark(disk.incarnation, disk.sequence)
    disk.live(gone)
    disk.incarnation, disk.sequence = copy
    disk.boot()
    assert disk.found_out or "acknowledged" not in gone


@given(st.lists(st.sampled_from(["acknowledged", "unheard"]), min_size=1), STEPS)
def test_a_disk_put_back_to_the_life_that_it_is_in_is_found_out_too(gone: list[str], before: list[str]) -> None:
    """A snapshot of a running machine has the same incarnation, but not the same sequence."""
    disk = Disk()
    disk.live(before)
    copy = Mark(disk.incarnation, disk.sequence)
    for _ in gone:
        disk.sequence += 1
        disk.remembered = grown(disk.remembered, Mark(disk.incarnation, disk.sequence))
    disk.incarnation, disk.sequence = copy
    disk.boot()
    assert disk.found_out


def test_a_witness_that_comes_late_is_believed_about_earlier_incarnations() -> None:
    """n3 was down when n2 was put back, and n1 remembered less. When n3 returns, n2 has passed the sequence that it once had."""
    start = Mark(4, 610)
    assert contradicts(Mark(3, 900), start, sequence=2000)
    assert not contradicts(Mark(3, 610), start, sequence=2000)
    assert not contradicts(Mark(4, 1999), start, sequence=2000)
    assert contradicts(Mark(5, 0), start, sequence=2000)


@given(MARKS, MARKS, MARKS)
def test_marks_grow_in_whatever_order_they_are_heard(one: Mark, two: Mark, three: Mark) -> None:
    assert grown(grown(one, two), three) == grown(three, grown(two, one))
    assert grown(one, one) == one
    assert grown(NO_MARK, one) == one
