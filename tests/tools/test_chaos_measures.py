"""Figures out of a history: what was answered, through which node, and how long it took until all was well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import measures
from chaos.measures import Measured, measured
from chaos.summary import Share
from chaos.testbed.history import READER, Action, Complete, FaultBegan, FaultEnded, Invoke, Note, Outcome, Record


class Story:
    """Records in the order of their times."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._ops = 0

    def call(
        self, node: str, at: float, outcome: Outcome = Outcome.OK, took: float = 0.01, why: str = "", client: int = 0
    ) -> None:
        action = Action.ROTATE if why == "epoch-ahead" else Action.DETOKENIZE
        self.records.append(Invoke(self._ops, action, "acme", node, ("qv_1_0", "qv_1_1"), at=at, client=client))
        self.records.append(Complete(self._ops, outcome, at=at + took, why=why))
        self._ops += 1

    def fault(self, number: int, began: float, ended: float, *nodes: str, kind: str = "kill") -> None:
        self.records.append(FaultBegan(number, kind, nodes, began, "words"))
        self.records.append(FaultEnded(number, ended, "mended"))

    def end(self, at: float) -> Measured:
        self.records.append(Note(at, "the end"))
        return measured(self.records)


def test_operations_are_counted_and_timed() -> None:
    story = Story()
    for number in range(100):
        story.call("n1", number * 0.1, took=(number + 1) / 1000)
    story.call("n1", 20.0, Outcome.UNKNOWN)
    story.call("n1", 21.0, Outcome.FAIL, why="no-quorum")
    story.call("n2", 22.0, Outcome.FAIL, why="epoch-ahead")
    story.call("n1", 23.0, client=READER)
    found = measures.operations(story.end(30.0).calls)
    read = found["detokenize"]
    assert (read.asked, read.ok, read.fail, read.unknown, read.items) == (102, 100, 1, 1, 200)
    assert [read.p50, read.p99, read.slowest] == pytest.approx([0.051, 0.1, 0.1])
    refused = found["rotate"]
    assert (refused.asked, refused.ok, refused.fail) == (1, 1, 0), "a refusal that the contract wants is an answer"


def test_a_call_that_never_ended_is_unknown() -> None:
    found = measured([Invoke(0, Action.EPOCH, "acme", "n1", at=1.0), Note(9.0, "the end")])
    assert [(call.outcome, call.took, call.ok) for call in found.calls] == [(Outcome.UNKNOWN, None, False)]
    assert measures.operations(found.calls)["epoch"].p99 is None


def test_what_the_others_serve_counts_from_one_second_on() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.call("n2", 10.5, Outcome.FAIL)  # it was not noticed yet
    story.call("n2", 11.5)
    story.call("n3", 12.0, Outcome.UNKNOWN)
    story.call("n1", 15.0, Outcome.FAIL)  # it is on this one
    story.call("n2", 20.5, Outcome.FAIL)  # it is over
    (seen,) = measures.faults(story.end(40.0))
    assert (seen.alone, seen.others) == (True, Share(2, 1))


def test_recovery_is_told_up_to_the_next_fault() -> None:
    story = Story()
    story.fault(0, 1.0, 10.0, "n1", "n2")
    story.fault(1, 20.0, 25.0, "n3")
    story.call("n1", 10.2, took=0.3)
    story.call("n2", 11.0, Outcome.FAIL)
    story.call("n2", 12.0, took=0.5)
    story.call("n3", 13.0, Outcome.UNKNOWN)
    story.call("n1", 19.9, Outcome.UNKNOWN, took=0.5)  # this is the next one's
    story.call("n1", 21.0, Outcome.FAIL)
    first, second = measures.faults(story.end(40.0))
    assert [first.back_seconds, first.calm_seconds] == pytest.approx([2.5, 3.0])
    assert (second.back_seconds, second.calm_seconds) == (None, None), "nothing was asked after it"


def test_a_fault_within_another_is_not_alone_and_tells_nothing_of_recovery() -> None:
    story = Story()
    story.fault(0, 1.0, 5.0, "n1")
    story.fault(1, 2.0, 9.0, "n2")
    story.call("n1", 6.0, Outcome.FAIL)
    story.call("n1", 9.5)
    story.call("n2", 9.5)
    first, second = measures.faults(story.end(20.0))
    assert (first.alone, second.alone, first.calm_seconds, second.calm_seconds) == (False, False, None, 0.0)


def test_aims_are_of_single_nodes_alone() -> None:
    story = Story()
    story.fault(0, 10.0, 20.0, "n1")
    story.fault(1, 30.0, 40.0, "n1", "n2", "n3", kind="kill-all")
    story.fault(2, 50.0, 60.0, kind="one-to-one")
    for at in (12.0, 13.0, 32.0, 52.0):
        story.call("n2", at, Outcome.OK if at != 13.0 else Outcome.FAIL)
    for at in (21.0, 41.0, 61.0):
        story.call("n1", at, Outcome.FAIL)
    found = measures.aims(measures.faults(story.end(70.0)))
    assert found.served == Share(2, 1)
    assert found.recovery_worst == found.recovery_median == pytest.approx(1.0)


def test_without_any_fault_nothing_is_claimed() -> None:
    found = measures.aims(measures.faults(Story().end(3.0)))
    assert (found.served, found.recovery_worst, found.recovery_median) == (Share(0, 0), None, None)


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.floats(0, 2_900), st.sampled_from(list(Outcome)))))
def test_buckets_have_every_call_once(told: list[tuple[str, float, Outcome]]) -> None:
    story = Story()
    for node, at, outcome in told:
        story.call(node, at, outcome)
    found = story.end(3_000.0)
    width = measures.bucket_seconds(found.end)
    through = measures.availability(found.calls, ("n1", "n2", "n3"), found.end, width)
    by_action = measures.series(found.calls, found.end, width)
    for node in through:
        assert sum(through[node].asked) == sum(name == node for name, _, _ in told)
        assert len(through[node].asked) == len(through[node].ok) == int(found.end / width) + 1
    assert sum(sum(series.asked) for series in by_action.values()) == len(told)
    for series in by_action.values():
        assert [p50 is None for p50 in series.p50] == [ok == 0 for ok in series.ok]


@given(st.floats(0.1, 20_000))
def test_a_run_of_any_length_fits_a_picture(end: float) -> None:
    assert 1 <= end / measures.bucket_seconds(end) + 1 <= 350


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_and_grows(values: list[float], share: float) -> None:
    ordered = sorted(values)
    quantile = measures.quantile(ordered, share)
    assert quantile in ordered
    assert (measures.quantile(ordered, 0), measures.quantile(ordered, 1)) == (ordered[0], ordered[-1])
