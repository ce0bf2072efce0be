"""Figures from a history: what was asked and answered, by operation and by node, and how fast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import measures
from chaos.measures import measured
from chaos.testbed.history import READER, Action, Invoke, Note, Outcome
from tests.rigs.stories import Story


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
