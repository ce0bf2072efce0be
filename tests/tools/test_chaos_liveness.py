"""Liveness aims: a history that misses one is invalid, or unknown where the machine or chance may be the cause."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import aftermath, liveness
from chaos.liveness import Liveness, interval
from chaos.summary import Aims, Share
from chaos.testbed.history import Convergence, Outcome, Whole
from tests.rigs.stories import Story

HELD = Liveness()


def good(**busy: float) -> Story:
    """A node is killed and comes back: 800 requests through the others, all served. ``busy``: the load of the machine."""
    story = Story()
    if busy:
        story.machine(0.0, 60.0, **busy)
    story.fault(0, 10.0, 15.0, "n1")
    for node in ("n2", "n3"):
        story.calls(node, 11.0, 15.0)
    story.call("n1", 15.4, Outcome.FAIL)
    story.calls("n1", 15.5, 25.0)
    return story


def judged(story: Story, end: float = 60.0) -> Liveness:
    return liveness.judge(aftermath.faults(story.end(end)))


def test_a_good_run_misses_nothing() -> None:
    story = good()
    story.whole(18.0)
    assert judged(story) == HELD


def test_so_is_one_on_a_busy_machine_that_served_nonetheless() -> None:
    story = good(late=0.9, others=0.9)
    story.whole(18.0)
    assert judged(story) == HELD


def unserved(**busy: float) -> Story:
    """84 % of the requests through the others are served."""
    story = good(**busy)
    story.whole(18.0)
    story.calls("n2", 13.0, 14.5, Outcome.FAIL)
    return story


def test_a_share_that_is_certainly_below_the_aim_is_missed() -> None:
    found = judged(unserved())
    ((rule, words),) = found.missed
    assert (rule, found.few, found.busy) == ("served", (), ())
    assert words.startswith("800 of 950 requests through the others were answered (aim: 99.9%); while the machine was quiet 80.9")


def test_on_a_busy_machine_that_is_open() -> None:
    found = judged(unserved(late=0.3, others=0.9))
    assert (found.missed, found.few) == ((), ())
    assert found.busy == (
        "served: 800 of 950 requests through the others were answered (aim: 99.9%); the machine was busy when they were not",
    )


def test_a_machine_that_the_nodes_keep_busy_themselves_excuses_nothing() -> None:
    assert judged(unserved(late=0.3, others=0.02, ours=0.98)).missed


def test_requests_that_were_never_sent_are_missed_too() -> None:
    story = good()
    story.whole(18.0)
    for number in range(100):
        story.unsent("n3", 12.0 + number / 50)
    assert [rule for rule, _ in judged(story).missed] == ["served"]


def test_one_failure_of_some_hundred_may_be_chance() -> None:
    story = good()
    story.whole(18.0)
    story.call("n2", 14.0, Outcome.FAIL)
    assert judged(story) == Liveness(
        few=("served: 800 of 801 requests through the others were answered (aim: 99.9%), too few to say whether that is chance",)
    )


def test_a_run_that_asked_nothing_through_the_others_says_nothing() -> None:
    story = Story()
    story.fault(0, 10.0, 15.0, "n1")
    story.whole(16.0)
    assert judged(story).few == (
        "served: 0 of 0 requests through the others were answered (aim: 99.9%), too few to say whether that is chance",
    )


@pytest.mark.parametrize("busy", [{}, {"late": 0.3, "others": 0.9}])
def test_a_run_without_a_fault_that_was_alone_says_nothing_of_what_is_served(busy: dict[str, float]) -> None:
    story = unserved(**busy)
    story.fault(1, 14.0, 17.0, "n2")
    words = "served: none of the faults on one node was alone: others overlapped it, or nodes were not whole before it"
    assert judged(story) == (Liveness(busy=(words,)) if busy else Liveness(few=(words,)))


def unrecovered(**busy: float) -> Story:
    """After the fault requests hang for seven seconds. None of them has ended when the next fault begins."""
    story = good(**busy)
    for number in range(116):
        story.call("n3", 15.0 + number * 0.06, Outcome.UNKNOWN, took=7.0)
    story.fault(1, 22.0, 25.0, "n2")
    story.whole(28.0)
    return story


def test_requests_that_still_fail_after_the_aim_are_missed() -> None:
    words = "requests failed up to 6.0 s after fault 0, kill of n1, was over (aim: 5 s)"
    assert judged(unrecovered()) == Liveness(missed=(("recovery", words),))


def test_so_are_those_of_a_node_that_does_not_come_back_before_the_next_fault() -> None:
    story = Story()
    story.fault(0, 10.0, 15.0, "n1")
    story.calls("n2", 11.0, 15.0)
    story.calls("n1", 15.0, 24.0, Outcome.FAIL)
    story.fault(1, 20.5, 23.0, "n3")
    story.call("n1", 24.0)
    story.whole(25.0)
    assert judged(story).missed == (("recovery", "requests failed up to 9.0 s after fault 0, kill of n1, was over (aim: 5 s)"),)


def test_on_a_busy_machine_a_late_recovery_is_open() -> None:
    found = judged(unrecovered(late=0.3, others=0.9))
    assert (found.missed, found.few, len(found.busy)) == ((), (), 1)
    assert found.busy[0].startswith("recovery: requests failed up to ")


@pytest.mark.parametrize(("busy", "is_open"), [({}, False), ({"late": 0.3, "others": 0.9}, True)])
def test_replicas_that_are_not_the_same_in_time_are_missed(busy: dict[str, float], is_open: bool) -> None:
    late, never = good(**busy), good(**busy)
    late.whole(26.0)
    never.whole(25.5, equal=False)
    for story, seconds in ((late, "11.0"), (never, "10.5")):
        words = f"the replicas were not the same {seconds} s after fault 0, kill of n1, was over (aim: 10 s)"
        expected = Liveness(busy=(f"convergence: {words}",)) if is_open else Liveness(missed=(("convergence", words),))
        assert judged(story) == expected


def test_a_disk_that_has_lost_something_has_longer_and_then_the_replicas_as_long_as_ever() -> None:
    whole, late, never, long = good(), good(), good(), good()
    for story in (whole, late, never, long):
        story.mending(15.5)
    whole.whole(36.0)
    late.records += [Whole(36.0), Convergence(47.0, equal=True)]
    long.whole(46.0)
    words = "the replicas were not the same 11.0 s after fault 0, kill of n1, was over and all disks were mended (aim: 10 s)"
    assert judged(whole) == HELD
    assert judged(late) == Liveness(missed=(("convergence", words),))
    for story, seconds in ((long, "31.0"), (never, "45.0")):
        words = f"a disk was not whole {seconds} s after fault 0, kill of n1, was over (aim: 30 s)"
        assert judged(story) == Liveness(missed=(("mending", words),))


def test_replicas_of_which_nobody_heard_before_the_next_fault_are_told() -> None:
    story = good()
    story.fault(1, 21.0, 22.0, "n2")
    story.whole(24.0)
    assert judged(story).missed == ()
    assert liveness.aims(aftermath.faults(story.end(60.0))).overtaken == 1


def aims(story: Story) -> Aims:
    return liveness.aims(aftermath.faults(story.end(70.0)))


def test_aims_are_of_one_node_at_most_alone() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.fault(1, 30.0, 40.0, "n1", "n2", "n3", kind="kill-all")
    story.fault(2, 50.0, 60.0, kind="one-to-one")
    for at in (12.0, 13.0, 32.0, 52.0):
        story.call("n2", at, Outcome.OK if at != 13.0 else Outcome.FAIL)
    for at in (21.0, 41.0, 63.0):
        story.call("n1", at, Outcome.FAIL)
        story.call("n1", at, took=0.5)
        story.whole(at + 1.0)
    found = aims(story)
    assert found.served == Share(3, 2)
    assert found.recovery is not None
    assert (found.recovery.least, found.recovery.most) == pytest.approx((1.5, 3.0))
    assert found.convergence is not None
    assert (found.convergence.count, found.convergence.most) == (3, 4.0)
    assert {kind: (seen.count, seen.most) for kind, seen in found.convergence_by_kind.items()} == {
        "kill": (1, 2.0), "kill-all": (1, 2.0), "one-to-one": (1, 4.0),
    }  # fmt: skip


def test_without_any_fault_nothing_is_claimed() -> None:
    found = aims(Story())
    assert (found.served, found.between, found.recovery, found.convergence) == (Share(0, 0), (0.0, 1.0), None, None)
    assert judged(Story()) == HELD


@pytest.mark.parametrize(
    ("asked", "ok", "low", "high"),
    [
        # 1 - 0.005^(1/n) is the exact bound for none or all of n. 1 of 10 is from published tables of 99 % intervals.
        (1000, 1000, 0.005 ** (1 / 1000), 1.0),
        (20, 0, 0.0, 1 - 0.005 ** (1 / 20)),
        (10, 1, 0.0005, 0.5443),
    ],
)
def test_the_interval_is_that_of_clopper_and_pearson(asked: int, ok: int, low: float, high: float) -> None:
    assert interval(Share(asked, ok)) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 3_000).flatmap(lambda asked: st.tuples(st.just(asked), st.integers(0, asked))))
def test_the_share_lies_in_its_interval(told: tuple[int, int]) -> None:
    low, high = interval(Share(*told))
    assert 0.0 <= low <= told[1] / told[0] + 1e-9
    assert told[1] / told[0] - 1e-9 <= high <= 1.0
    assert not math.isclose(low, high)
