"""When a disk that has lost its vote may stand in as one of three."""

import pytest

from quorumvault.protocol.donors import Donor, stands_in, unread
from quorumvault.protocol.rollback_marks import Mark, Marks
from quorumvault.protocol.views import first_view, successor

DISKS = {node: node.encode() * 8 for node in ("n1", "n2", "n3")}
OLD = first_view(DISKS)
NEW = successor(OLD, "n2", b"d" * 16)
LATER = successor(NEW, "n2", b"e" * 16)
BESIDE = successor(NEW, "n3", b"f" * 16)
AT = Mark(2, 200)
HOLDS = Donor("n2", DISKS["n2"], OLD, AT)
JOINED = Donor("n2", b"d" * 16, NEW, AT)


def marks(mark: Mark = AT, **others: Mark) -> Marks:
    return {DISKS["n2"]: mark} | {name.encode() * 16: other for name, other in others.items()}


@pytest.mark.parametrize("view", [OLD, NEW])
def test_a_disk_that_is_listed_or_was_until_the_view_before_stands_in(view: object) -> None:
    """Proves: donors have no voice."""
    assert stands_in(HOLDS, view, [marks(), marks(Mark(2, 150))])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("donor", "view", "remembered"),
    [
        (HOLDS, NEW, [marks(), marks(Mark(2, 201))]),  # the donor is an older copy
        (HOLDS, NEW, [marks(Mark(3, 200)), marks()]),
        (HOLDS, NEW, [marks(), {}]),  # nobody can rule out that the donor is an older copy
        (HOLDS, NEW, [marks(), marks(d=Mark(1, 1), e=Mark(1, 1))]),  # another disk left since, and may have voted
        (HOLDS, LATER, [marks(), marks()]),
        (HOLDS, BESIDE, [marks(), marks()]),  # one of the other disks has been replaced since
        (Donor("n2", b"?" * 16, OLD, AT), OLD, [marks(), marks()]),
        (JOINED, LATER, [marks(), marks()]),
    ],
)
def test_any_other_only_gives_what_it_has(donor: Donor, view: object, remembered: list[Marks]) -> None:
    assert not stands_in(donor, view, remembered)  # type: ignore[arg-type]


def test_a_part_is_read_if_two_can_read_it() -> None:
    assert unread([{b"a"}, {b"b"}, set()]) == set()
    assert unread([{b"a", b"b"}, {b"b"}, set()]) == {b"b"}
    assert unread([{b"a"}, set()]) == {b"a"}
    assert unread([set(), set()]) == set()
