"""Checks of the fence: which peers are asked, and when."""

import pytest

from quorumvault.config.limits import Timeouts
from quorumvault.server.coordinator.fence_checks import FenceChecks
from tests.rigs.trio import Diary, make_coordinator

WAIT = 0.01


def test_a_peer_is_relied_on_unless_its_last_check_was_late_or_refused() -> None:
    checks = FenceChecks(WAIT)
    assert checks.relies_on("n2")
    checks.begin(1.0).answered("n2", 1.0 + WAIT / 2)
    assert checks.relies_on("n2")
    slow = checks.begin(2.0)
    assert slow.overdue(["n2"], "n3", 2.0 + WAIT)
    assert not checks.relies_on("n2")
    assert checks.relies_on("n3")
    slow.answered("n2", 2.0 + 2 * WAIT)
    assert not checks.relies_on("n2")
    checks.begin(3.0).answered("n2", 3.0 + WAIT / 2)
    assert checks.relies_on("n2")
    checks.begin(4.0).refused("n2", 4.0)
    assert not checks.relies_on("n2")


def test_a_late_answer_counts_even_if_nobody_had_to_wait_for_it() -> None:
    """Both peers were asked at once, and the other one decided."""
    checks = FenceChecks(WAIT)
    checks.begin(1.0).answered("n3", 1.0 + 3 * WAIT)
    assert not checks.relies_on("n3")


@pytest.mark.parametrize(("hedge", "wait"), [(0.05, 0.01), (1.0, 0.2), (0.0, 0.001)])
def test_a_coordinator_waits_for_a_peer_for_a_fifth_of_a_hedge(hedge: float, wait: float) -> None:
    coordinator = make_coordinator("n1", {}, Diary(), timeouts=Timeouts(hedge=hedge))
    assert coordinator._checks.begin(0.0).wait == pytest.approx(wait)
