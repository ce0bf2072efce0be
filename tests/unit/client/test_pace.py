"""Requests get smaller while nodes are slow, and larger again later. The test moves the clock, and its nodes need time."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault import errors
from quorumvault.client import ClientPolicy, Trouble
from quorumvault.client.failover import Nodes
from quorumvault.client.operations import Operations
from quorumvault.client.pace import FEWEST, Pace
from quorumvault.client.plan import EffectResult, Failure, NoReply, Pause, Plan, Reply, Send
from quorumvault.client.retry import Attempts
from tests.rigs.clients import made_token
from tests.rigs.vault import Clock, key_text

URLS = ("http://n1", "http://n2", "http://n3")
LIMITS = b'{"items":10000,"body_bytes":16777216,"value_bytes":65536}'
NO_QUORUM = Reply(503, 1.0, json.dumps({"detail": "words", "code": "no-quorum", "retryable": True, "outcome": "none"}).encode())
VALUES = [str(number) for number in range(10_000)]


class Cluster:
    """Nodes that take ``seconds`` for each item, and a client's plans that use them. ``asked`` has the size of each request.

    ``turn``: the seconds that a request of more than FEWEST items waits before its items are handled.

    A node that exceeds the client's time limit is silent. ``fails`` may return a failure in place of the node's answer.
    """

    def __init__(self, seconds: float = 0.0, *, turn: float = 0.0, **policy: Any) -> None:
        self.seconds = seconds
        self.turn = turn
        self.fails: Callable[[], EffectResult] = lambda: None
        self.clock = Clock()
        self.policy = ClientPolicy(**policy)
        self.attempts = Attempts(Nodes(URLS, self.policy), self.policy, {}, key_text("clinic"), self.clock, random.Random(1))
        self.plans = Operations(self.attempts, self.policy, self.clock)
        self.asked: list[int] = []
        self.troubles: list[Trouble] = []

    def run(self, plan: Plan[Any]) -> Any:
        outcome: EffectResult = None
        while True:
            try:
                step = plan.send(outcome)
            except StopIteration as stop:
                return stop.value
            self.troubles.append(self.plans.trouble())
            if isinstance(step, Pause):
                self.clock.now += step.seconds
                outcome = None
            else:
                outcome = self._answer(step)

    def _answer(self, send: Send) -> Reply | NoReply:
        if send.url.endswith("/limits"):
            return Reply(200, None, LIMITS)
        items = self._items(send.body or b"")
        self.asked.append(len(items))
        failure = self.fails()
        if failure is not None:
            return failure
        needed = self.seconds * len(items) + (self.turn if len(items) > FEWEST else 0.0)
        self.clock.now += min(needed, send.silence)
        if needed > send.silence:
            return NoReply(Failure.SILENT, "connected")
        if not send.url.endswith("tokenize"):
            raise AssertionError
        return Reply(200, None, json.dumps({"epoch": 1, "tokens": [made_token(f"1:{item}") for item in items]}).encode())

    @staticmethod
    def _items(body: bytes) -> list[Any]:
        return list(json.loads(body)["values"])

    def tokenize(self, values: list[str]) -> None:
        assert self.run(self.plans.tokenize(values)) == [made_token(f"1:{value}") for value in values]


@given(st.lists(st.tuples(st.integers(1, 20_000), st.booleans(), st.floats(0, 9))), st.none() | st.integers(1, 20_000))
def test_a_pace_stays_within_its_bounds(outcomes: list[tuple[int, bool, float]], most: int | None) -> None:
    pace = Pace(most)
    for wanted, late, seconds in outcomes:
        items, before = min(wanted, pace.items), pace.items
        if not late:
            pace.answered(items, seconds, allowed=4.0)
            assert pace.items >= before
        elif pace.late(items):
            assert pace.items <= max(FEWEST, items // 2) < items
        else:
            assert (pace.items, items) == (before, min(items, FEWEST))
        assert min(FEWEST, most or FEWEST) <= pace.items
        assert most is None or pace.items <= most


def test_calls_that_are_late_at_once_count_as_one() -> None:
    pace = Pace(None)
    assert [pace.late(8000) for _ in range(6)] == [True] * 6
    assert pace.items == 4000


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 9))
def test_a_run_is_cut_without_a_loss(paces: list[int], count: int) -> None:
    rest: slice | None = slice(0, count)
    found: list[int] = []
    while rest is not None:
        part, rest = Pace(paces.pop() if len(paces) > 1 else paces[0]).cut(rest)
        found += range(part.start, part.stop)
    assert found == list(range(count))


def test_nodes_that_answer_in_time_are_asked_for_all_they_take() -> None:
    cluster = Cluster(seconds=0.0001)
    cluster.tokenize([*VALUES, "one more"])
    assert cluster.asked == [10_000, 1]


def test_no_answer_in_time_makes_requests_smaller_until_there_is_one() -> None:
    """These nodes need a minute for ten thousand items: far longer than the client waits for one answer, or for all its tries."""
    cluster = Cluster(seconds=0.006)
    cluster.tokenize(VALUES)
    assert cluster.asked[:4] == [10_000, 5000, 2500, 1250]
    assert cluster.clock.now - 1000 > cluster.policy.request
    assert max(cluster.asked[6:]) * cluster.seconds < cluster.policy.silence + 1  # a size that the nodes can handle
    wasted = sum(size for size in cluster.asked[6:] if size * cluster.seconds > cluster.policy.silence)
    assert wasted < len(VALUES) / 2


def test_where_requests_wait_for_their_turn_they_stay_large() -> None:
    """A small request would wait as long. The client gives up a few requests, and then waits for as long as a turn takes."""
    cluster = Cluster(seconds=0.0001, turn=4.0)
    for _ in range(10):
        cluster.tokenize(VALUES)
    assert cluster.asked[:2] == [10_000, 5000]
    assert len(cluster.asked) < 50
    assert sum(cluster.asked) < 1.3 * 10 * len(VALUES)
    cluster.turn = 0.0
    for _ in range(5):
        cluster.tokenize(VALUES)
    assert cluster.asked[-1] == 10_000
    assert cluster.attempts.pace.patience == 1.0


def test_requests_grow_again_when_nodes_are_fast() -> None:
    cluster = Cluster(seconds=0.006)
    cluster.tokenize(VALUES)
    cluster.seconds = 0.0001
    cluster.asked.clear()
    for _ in range(2):
        cluster.tokenize(VALUES)
    cluster.asked.clear()
    cluster.tokenize(VALUES)
    assert cluster.asked == [10_000]


def test_the_cut_is_kept_in_the_next_call() -> None:
    cluster = Cluster(seconds=0.001)
    cluster.tokenize(VALUES)
    cluster.asked.clear()
    cluster.tokenize(VALUES)
    assert max(cluster.asked) < 5000
    assert sum(cluster.asked) < 1.5 * len(VALUES)


def test_a_node_that_does_not_hear_from_the_others_in_time_is_asked_for_less_too() -> None:
    cluster, left = Cluster(), iter([NO_QUORUM, NO_QUORUM])
    cluster.fails = lambda: next(left, None)
    cluster.tokenize(VALUES)
    assert cluster.asked == [10_000, 5000, 2500, 2500, 5000]


@pytest.mark.parametrize("outcome", [NoReply(Failure.REFUSED, "refused"), NoReply(Failure.BROKEN, "reset")])
def test_a_node_that_is_not_there_says_nothing_about_how_much_to_ask_for(outcome: NoReply) -> None:
    cluster, left = Cluster(), iter([outcome, outcome])
    cluster.fails = lambda: next(left, None)
    cluster.tokenize(VALUES)
    assert cluster.asked == [10_000] * 3


def test_a_busy_node_names_a_time_and_is_asked_for_no_less() -> None:
    busy = Reply(429, 1.0, json.dumps({"detail": "words", "code": "busy", "retryable": True}).encode())
    cluster, left = Cluster(), iter([busy] * 4)
    cluster.fails = lambda: next(left, None)
    cluster.tokenize(VALUES)
    assert cluster.asked == [10_000] * 5


def test_an_outage_ends_a_call_when_nothing_was_answered_for_so_long() -> None:
    cluster = Cluster(seconds=1000.0, request=40.0)
    with pytest.raises(errors.Unreachable, match="the time is up") as caught:
        cluster.run(cluster.plans.tokenize(VALUES))
    assert min(cluster.asked) >= FEWEST
    assert len(caught.value.asked) == len(cluster.asked)
    assert 30 <= cluster.clock.now - 1000 <= 40
    assert caught.value.outcome == "unknown"


def test_the_patience_begins_anew_with_each_answer() -> None:
    cluster = Cluster(seconds=0.01, request=30.0)
    cluster.tokenize(VALUES)
    assert cluster.clock.now - 1000 > 100


def test_the_deadline_of_a_call_bounds_it_all_the_same() -> None:
    cluster = Cluster(seconds=0.01)
    with pytest.raises(errors.Unreachable, match="the time is up"):
        cluster.run(cluster.plans.tokenize(VALUES, deadline=50.0))
    assert cluster.clock.now - 1000 <= 50


def test_no_request_asks_for_more_than_the_caller_allows() -> None:
    cluster = Cluster(batch=30)
    cluster.tokenize(VALUES[:100])
    assert cluster.asked == [30, 30, 30, 10]
    with pytest.raises(ValueError, match="batch"):
        ClientPolicy(batch=0)


def test_errors_are_about_the_callers_items_whatever_the_requests_were() -> None:
    cluster = Cluster()
    refused = {"detail": "item 5: is one", "code": "too-large", "retryable": False}
    refused |= {"code": "already-tokenized", "errors": [{"index": 5, "code": "already-tokenized", "detail": "is one"}]}
    left = iter([NO_QUORUM, None, Reply(422, None, json.dumps(refused).encode())])
    cluster.fails = lambda: next(left)
    with pytest.raises(errors.AlreadyTokenized) as caught:
        cluster.run(cluster.plans.tokenize(VALUES))
    assert [item.index for item in caught.value.errors] == [5005]


def test_arrow_streams_are_made_for_what_is_asked_at_once() -> None:
    cluster, left = Cluster(), iter([NO_QUORUM, NO_QUORUM])
    cluster.fails = lambda: next(left, None)

    def encode(run: slice) -> bytes:
        return json.dumps({"values": VALUES[run]}).encode()

    answers = cluster.run(cluster.plans.exchange_arrow("tokenize", encode, 10_000))
    assert [(run.start, run.stop) for run, _ in answers] == [(0, 2500), (2500, 5000), (5000, 10_000)]
    assert [token for _, body in answers for token in json.loads(body)["tokens"]] == [
        made_token(f"1:{value}") for value in VALUES
    ]


def test_what_a_client_waits_for_can_be_shown() -> None:
    outcomes: list[EffectResult] = [NoReply(Failure.REFUSED, "refused"), *[NO_QUORUM] * 4]
    cluster, left = Cluster(request=30.0), iter(outcomes)
    cluster.fails = lambda: next(left, None)
    cluster.tokenize(VALUES[:10])
    waiting = [trouble for trouble in cluster.troubles if trouble.seconds_left is not None]
    assert waiting[0].nodes == (("http://n2", "no connection"),)
    assert {outcome for _, outcome in waiting[-1].nodes} == {"503 no-quorum"}
    assert 20 < (waiting[-1].seconds_left or 0) < (waiting[0].seconds_left or 0) <= 30
    told = cluster.plans.trouble()
    assert (len(told.nodes), told.seconds_left) == (2, None)  # no call waits; nodes that did not answer last are still reported
    cluster.clock.now += 10
    for _ in range(3):
        cluster.tokenize(VALUES[:10])
    assert cluster.plans.trouble().nodes == ()


def test_a_call_that_failed_waits_for_nothing_any_more() -> None:
    cluster = Cluster(request=5.0)
    cluster.fails = lambda: NO_QUORUM
    with pytest.raises(errors.NoQuorum):
        cluster.run(cluster.plans.tokenize(VALUES))
    trouble = cluster.plans.trouble()
    assert (len(trouble.nodes), trouble.seconds_left) == (3, None)
