"""The effect of a fault: what was served through the other nodes, and how long it took until all its consequences were over."""

import pytest

from chaos import aftermath
from chaos.aftermath import BusyTimes
from chaos.summary import FaultSeen, Share, Spread
from chaos.testbed.history import Machine, Outcome
from tests.rigs.stories import Story


def seen(story: Story, end: float) -> tuple[FaultSeen, ...]:
    return aftermath.faults(story.end(end))


def test_what_the_others_serve_counts_from_one_second_on() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.call("n2", 10.5, Outcome.FAIL)  # the fault was not noticed yet
    story.call("n2", 11.5)
    story.call("n3", 12.0, Outcome.UNKNOWN)
    story.call("n1", 15.0, Outcome.FAIL)  # through the failed node itself
    story.call("n2", 20.5, Outcome.FAIL)  # the fault is over
    (fault,) = seen(story, 40.0)
    assert (fault.alone, fault.others, fault.quiet) == (True, Share(2, 1), Share(2, 1))


def test_a_request_that_was_due_and_not_sent_was_not_served() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.call("n2", 11.5)
    story.unsent("n2", 12.0)
    story.unsent("n2", 21.0)
    (fault,) = seen(story, 40.0)
    assert fault.others == Share(2, 1)
    assert fault.calm_seconds == pytest.approx(1.0)


def test_recovery_is_told_up_to_the_next_fault() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1", "n2")
    story.fault(1, 20.0, 25.0, "n3")
    story.call("n1", 10.2, took=0.3)
    story.call("n2", 11.0, Outcome.FAIL)
    story.call("n2", 12.0, took=0.5)
    story.call("n3", 13.0, Outcome.UNKNOWN)
    story.call("n1", 19.9, Outcome.UNKNOWN, took=0.5)  # belongs to the next fault
    story.call("n1", 21.0, Outcome.FAIL)
    first, second = seen(story, 40.0)
    assert [first.back_seconds, first.calm_seconds] == pytest.approx([2.5, 3.0])
    assert (second.back_seconds, second.calm_seconds) == (None, None), "nothing was asked after it"


def test_a_request_that_had_long_waited_when_the_next_fault_came_is_not_of_that_one() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1")
    story.fault(1, 16.0, 20.0, "n2")
    story.call("n1", 10.2)
    story.call("n3", 14.0, Outcome.UNKNOWN, took=7.0)
    first, _ = seen(story, 40.0)
    assert first.calm_seconds == pytest.approx(4.0)


def test_a_node_that_is_not_back_when_the_next_fault_comes_is_followed_further() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1")
    story.fault(1, 16.0, 20.0, "n2")
    story.calls("n1", 10.0, 18.0, Outcome.FAIL)
    story.call("n3", 17.0, Outcome.FAIL)  # two nodes are down now
    story.call("n1", 18.5)
    first, second = seen(story, 40.0)
    assert [first.recovered_seconds, first.back_seconds] == pytest.approx([8.51, 8.51])
    assert not second.alone, "nothing says that all nodes were whole before it"


def test_a_node_that_is_not_back_when_the_same_happens_to_it_again_failed_that_long() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1")
    story.fault(1, 16.0, 20.0, "n1")
    story.calls("n1", 10.0, 20.0, Outcome.FAIL)
    story.call("n1", 20.5)
    first, second = seen(story, 40.0)
    assert first.back_seconds is None
    assert [first.recovered_seconds, second.recovered_seconds] == pytest.approx([5.99, 0.51])


def test_two_nodes_that_are_not_there_at_a_time_say_nothing_of_the_first_s_recovery() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1")
    story.fault(1, 11.0, 20.0, "n2")
    story.calls("n1", 10.0, 22.0, Outcome.FAIL)
    story.call("n1", 22.5)
    first, _ = seen(story, 40.0)
    assert (first.back_seconds, first.recovered_seconds) == (None, None)


def test_a_fault_within_another_is_not_alone_and_tells_nothing_of_recovery() -> None:
    story = Story()
    story.fault(0, 1.0, 5.0, "n1")
    story.fault(1, 2.0, 9.0, "n2")
    story.call("n1", 6.0, Outcome.FAIL)
    story.call("n1", 9.5)
    story.call("n2", 9.5)
    story.whole(11.0)
    first, second = seen(story, 20.0)
    assert (first.alone, second.alone, first.calm_seconds, second.calm_seconds) == (False, False, None, 0.0)
    assert (first.watched_seconds, first.converged_seconds, second.converged_seconds) == (0.0, None, 2.0)


def test_a_fault_is_alone_once_all_nodes_were_whole_after_the_one_before() -> None:
    story = Story()
    story.fault(0, 1.0, 5.0, "n1")
    story.whole(7.0)
    story.fault(1, 11.0, 15.0, "n2")
    story.fault(2, 21.0, 25.0, "n3")
    assert [fault.alone for fault in seen(story, 40.0)] == [True, True, False]


def test_convergence_is_when_all_three_were_the_same_if_no_fault_came_before_that() -> None:
    story = Story()
    story.fault(0, 1.0, 5.0, "n1")
    story.whole(7.5)
    story.fault(1, 11.0, 15.0, "n2")
    story.fault(2, 21.0, 25.0, "n3")
    story.whole(36.0, equal=False)
    found = seen(story, 60.0)
    assert [fault.converged_seconds for fault in found] == [2.5, None, None]
    assert [fault.watched_seconds for fault in found] == [6.0, 6.0, 11.0]


def test_what_was_asked_while_others_kept_the_machine_busy_is_not_quiet_whatever_came_of_it() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.machine(5.0, 14.0, late=0.01, others=0.9)  # busy, but the control is not late
    story.machine(14.0, 16.0, late=0.3, others=0.9)
    story.machine(16.0, 30.0, late=0.3, others=0.05, ours=0.95)  # the nodes themselves are the load
    for at, outcome in ((12.0, Outcome.OK), (14.5, Outcome.OK), (15.0, Outcome.FAIL), (17.9, Outcome.FAIL), (19.0, Outcome.FAIL)):
        story.call("n2", at, outcome)
    (fault,) = seen(story, 40.0)
    assert (fault.others, fault.quiet) == (Share(5, 2), Share(2, 1)), "two seconds after it, what it did still lasts"
    assert (fault.busy, fault.late) == (False, 0.3), "nothing kept it busy after the fault"


def test_a_request_that_waits_into_a_busy_time_is_not_quiet() -> None:
    busy = BusyTimes([Machine(10.0, 11.0, 0.2, 0.0, 0.1, 0.9, 5.0), Machine(30.0, 31.0, 0.0, 0.7, 0.1, 0.0, 5.0)])
    assert [busy.meet(began, ended) for began, ended in ((0.0, 9.9), (0.0, 10.0), (12.9, 13.5), (13.1, 29.0), (20.0, 99.0))] == [
        False, True, True, False, True,
    ]  # fmt: skip


def test_the_load_is_a_range() -> None:
    story = Story()
    story.machine(0.0, 3.0, late=0.01, others=0.1)
    story.machine(3.0, 4.0, late=0.3, others=0.7)
    found = aftermath.load(story.end(5.0).machine)
    assert found is not None
    assert (found.busy, found.late, found.others) == (1, Spread(4, 0.01, 0.01, 0.3), Spread(4, 0.1, 0.1, 0.7))
    assert aftermath.load([]) is None
