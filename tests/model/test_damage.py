"""Damage in every order of messages: a disk never says that a lost record is absent, and nothing else takes its place."""

from dataclasses import replace

import pytest

from tests.model.damagescopes import ONE, SMALL
from tests.model.sizes import by_size
from tests.model.world import Violation


@pytest.mark.parametrize("name", by_size(SMALL))
def test_what_a_disk_has_lost_is_unknown_until_both_others_were_read(name: str) -> None:
    """Proves: what is not known is not absent, write-once."""
    scope = SMALL[name]
    world = scope.world()
    assert world.explore().states > scope.at_least
    assert world.odd == []


def test_a_gap_that_is_filled_while_an_operation_counts_the_process_of_before_is_filled_too_early() -> None:
    """This is why a node waits before it fills a gap (server/healing/fill_gaps.py)."""
    early = replace(SMALL["damaged-put-get"], damage=replace(ONE, ends=False))
    with pytest.raises(Violation, match="not found, after it was acknowledged"):
        early.world().explore()
