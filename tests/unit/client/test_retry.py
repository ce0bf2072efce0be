"""One request of the client, tried until it is settled: the plan, step by step, with a clock that the test moves."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault import errors
from quorumvault.client import ClientPolicy
from quorumvault.client.failover import Nodes, RetryBudget
from quorumvault.client.plan import Call, EffectResult, Failure, NoReply, Pause, Reply, Send, Success
from quorumvault.client.retry import Attempts
from tests.rigs.vault import Clock, key_text

KEY = key_text("clinic")
REFUSED = NoReply(Failure.REFUSED, "connection refused")
SILENT = NoReply(Failure.SILENT, "connected")
BROKEN = NoReply(Failure.BROKEN, "reset")
OK = Reply(200, None, b"{}")
URLS = ("http://n1", "http://n2", "http://n3")
WRITE = Call("POST", "/tokenize", b"{}", writes=True)
READ = Call("POST", "/detokenize", b"{}")
EPOCH = Call("GET", "/epoch")


def problem(status: int, code: str, retry_after: float | None = None, **members: Any) -> Reply:
    retryable = status in (429, 503)
    return Reply(status, retry_after, json.dumps({"detail": "words", "code": code, "retryable": retryable, **members}).encode())


#: The client asks each node once, and earns no further retry over time.
ONE_LAP = ClientPolicy(retries_saved=2, retries_per_second=0)
NO_QUORUM = problem(503, "no-quorum", outcome="unknown")


class Script:
    """Runs one plan: answers each Send with ``answer`` of the node and the try number, and moves a clock by each Pause."""

    def __init__(self, urls: Sequence[str] = URLS, policy: ClientPolicy | None = None) -> None:
        self.clock = Clock()
        self.policy = policy or ClientPolicy()
        self.nodes = Nodes(urls, self.policy)
        self.attempts = Attempts(self.nodes, self.policy, {}, KEY, self.clock, random.Random(1))
        self.sends: list[Send] = []
        self.pauses: list[float] = []

    def run(
        self, call: Call, answer: Callable[[str, int], EffectResult], deadline: float | None = None, takes: float = 0.0
    ) -> Success:
        plan = self.attempts.request(call, deadline)
        outcome: EffectResult = None
        while True:
            try:
                step = plan.send(outcome)
            except StopIteration as stop:
                answered: Success = stop.value
                return answered
            if isinstance(step, Pause):
                self.pauses.append(step.seconds)
                self.clock.now += step.seconds
                outcome = None
            else:
                self.sends.append(step)
                self.clock.now += takes
                outcome = answer(step.url.removesuffix(call.path), len(self.sends))

    def asks(self, *told: dict[str | int, EffectResult], call: Call = READ, seconds: float = 0.0) -> None:
        """Move the clock by ``seconds``, then run a plan for each of ``told``: outcomes by node or try number, else success."""
        self.clock.now += seconds
        for outcomes in told:
            self.run(call, lambda node, number: outcomes.get(node[-2:], outcomes.get(number, OK)))  # noqa: B023 - at once

    @property
    def asked(self) -> list[str]:
        return [send.url.removeprefix("http://").partition("/")[0] for send in self.sends]

    @property
    def patience(self) -> list[float]:
        return [send.silence for send in self.sends]


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        # Requests rotate among the nodes.
        ([{}] * 4, ["n1", "n2", "n3", "n1"]),
        # The client leaves an unreachable node for the next one without waiting, and asks it last for a while.
        ([{"n1": REFUSED}] * 3, ["n1", "n2", "n3", "n2"]),
        ([{"n1": SILENT}] * 3, ["n1", "n2", "n3", "n2"]),
        # A broken connection says nothing about the next one.
        ([{1: BROKEN}, {}, {}], ["n1", "n2", "n3", "n1"]),
    ],
)
def test_which_node_is_asked_next(told: list[dict[str | int, EffectResult]], asked: list[str]) -> None:
    script = Script()
    script.asks(*told)
    assert (script.asked, script.pauses) == (asked, [])
    script.asks({}, {}, {}, seconds=script.policy.set_back + 1)
    assert "n1" in script.asked[4:]


def test_the_outcomes_of_tries_are_told() -> None:
    answered = Script().run(WRITE, lambda node, number: REFUSED if node == "http://n1" else OK)
    assert [outcome for _, outcome in answered.asked] == ["no connection (connection refused)", "200"]


def test_a_node_in_doubt_is_tried_by_one_call_at_a_time() -> None:
    script = Script()
    script.asks({"n1": SILENT})
    now = script.clock.now + script.policy.set_back + 1
    chosen = [script.nodes.choose(now, set()) for _ in range(6)]
    assert chosen.count("http://n1") == 1
    script.nodes.answered("http://n1")
    assert {script.nodes.choose(now, set()) for _ in range(3)} == set(URLS)


def test_a_silent_node_is_left_soon_for_one_that_answers() -> None:
    script = Script()
    script.asks({"n1": SILENT}, call=EPOCH)
    assert script.patience == [script.policy.failover] * 2
    assert script.policy.failover <= 2.0


def test_and_later_if_much_was_asked_of_it() -> None:
    script = Script()
    for size in (10, script.policy.failover_bytes, 16 << 20):
        script.asks({}, call=Call("POST", "/tokenize", bytes(size), writes=True))
    assert [round(silence, 3) for silence in script.patience] == [1.5, 2.5, script.policy.silence]


@pytest.mark.parametrize("script", [Script(URLS[:1]), Script(policy=ClientPolicy(retries_saved=0))])
def test_a_silent_node_is_waited_for_if_there_is_no_other_or_no_retry_could_follow(script: Script) -> None:
    script.asks({})
    assert script.patience == [script.policy.silence]


def test_the_last_node_that_is_not_in_doubt_is_waited_for() -> None:
    """All nodes are slow, not dead, so the client has to wait for one of them."""
    script = Script()
    script.asks({1: SILENT, 2: SILENT}, {}, call=EPOCH)
    failover, silence = script.policy.failover, script.policy.silence
    assert script.patience == [failover, failover, silence, silence]
    assert script.asked == ["n1", "n2", "n3", "n3"]


def test_after_a_lap_without_an_answer_each_node_is_waited_for() -> None:
    """The nodes are busy: one left after the shortest wait would have answered a little later, and the next is just as busy."""
    script = Script()
    script.asks(dict.fromkeys(range(1, 5), NO_QUORUM), call=EPOCH)
    failover, silence = script.policy.failover, script.policy.silence
    assert script.patience == [failover] * 3 + [silence] * 2


def test_between_laps_it_waits_longer_each_time_up_to_a_limit() -> None:
    script = Script(URLS[:1], ClientPolicy(retries_saved=1e6))
    with pytest.raises(errors.Unreachable):
        script.run(READ, lambda node, number: REFUSED)
    longest = [min(0.1 * 2**lap, 2.0) for lap in range(len(script.pauses))]
    assert all(most / 2 <= pause <= most for pause, most in zip(script.pauses, longest, strict=True))
    assert script.policy.request - 2.0 <= script.clock.now - 1000 <= script.policy.request


def test_retry_after_is_kept_while_another_node_is_asked_at_once() -> None:
    script = Script(URLS[:2])
    script.asks({"n1": problem(429, "busy", retry_after=5)}, {}, {}, {})
    assert (script.asked, script.pauses) == (["n1", "n2", "n2", "n2", "n2"], [])
    script.asks({}, {}, seconds=5)
    assert "n1" in script.asked[5:]


def test_when_every_node_names_a_time_it_waits_for_the_first() -> None:
    script = Script(URLS[:2])
    script.asks({1: problem(503, "no-quorum", 4.0), 2: problem(503, "no-quorum", 3.0)})
    assert script.asked == ["n1", "n2", "n2"]
    assert 3.0 < script.pauses[0] <= 3.1


def test_a_rate_that_is_used_up_is_so_at_every_node() -> None:
    script = Script()
    script.asks({1: problem(429, "rate-limited", 2)})
    assert script.pauses[0] >= 2.0


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    script = Script(URLS[:1])
    with pytest.raises(errors.Busy) as caught:
        script.run(READ, lambda node, number: problem(429, "busy", retry_after=60))
    assert (script.pauses, caught.value.gave_up) == ([], "the time is up")


def test_the_deadline_of_a_call_bounds_its_tries() -> None:
    script = Script(URLS[:1])
    with pytest.raises(errors.Unreachable, match="the time is up"):
        script.run(READ, lambda node, number: SILENT, deadline=1010.0, takes=7.0)
    assert [send.silence for send in script.sends] == [7.0, pytest.approx(3.0 - script.pauses[0])]
    assert [send.until for send in script.sends] == [1010.0, 1010.0]


def test_a_deadline_that_is_past_leaves_no_time_for_a_try() -> None:
    script = Script()
    with pytest.raises(errors.Unreachable, match="the time is up"):
        script.run(READ, lambda node, number: OK, deadline=1000.0)
    assert script.sends == []


ANYTHING = st.sampled_from([REFUSED, SILENT, BROKEN, NO_QUORUM, problem(429, "busy", 3), problem(503, "draining", 1)])


@given(st.lists(ANYTHING, min_size=200, max_size=200), st.floats(0, 9), st.floats(0.001, 60))
def test_whatever_happens_the_plan_keeps_its_bounds(outcomes: list[Reply | NoReply], takes: float, deadline: float) -> None:
    script = Script(policy=ClientPolicy(retries_saved=20))
    until = 1000 + min(deadline, script.policy.request)
    with pytest.raises(errors.QuorumVaultError) as caught:
        script.run(READ, lambda node, number: outcomes[number - 1], deadline=1000 + deadline, takes=takes)
    assert caught.value.retryable
    assert caught.value.gave_up
    assert all(0 < send.silence <= script.policy.silence and send.until == until for send in script.sends)
    assert len(script.sends) <= 1 + script.policy.retries_saved + script.policy.retries_per_second * script.policy.request
    assert script.clock.now - takes <= until


@given(st.floats(0.001, 1), st.floats(0.001, 10))
def test_a_clock_that_goes_on_between_two_readings_gives_no_node_less_than_no_time(tick: float, deadline: float) -> None:
    script = Script()

    def ticking() -> float:
        script.clock.now += tick
        return script.clock.now

    script.attempts = Attempts(script.nodes, script.policy, {}, KEY, ticking, random.Random(1))
    with pytest.raises(errors.Unreachable) as caught:
        script.run(READ, lambda node, number: REFUSED, deadline=1000 + deadline)
    assert caught.value.gave_up == "the time is up"
    assert all(send.silence > 0 for send in script.sends)


def test_retries_have_a_budget_and_wait_for_its_refilling() -> None:
    policy = ClientPolicy(retries_saved=2, retries_per_second=1, retries_per_request=0, backoff_first=0.001, backoff_last=0.001)
    script = Script(URLS, policy)
    with pytest.raises(errors.NoQuorum, match="the retry budget is used up") as caught:
        script.run(READ, lambda node, number: NO_QUORUM)
    assert caught.value.retryable
    assert 3 + 15 <= len(script.sends) <= 3 + policy.request
    assert policy.request - 2 <= script.clock.now - 1000 <= policy.request


def test_what_the_budget_will_not_allow_in_time_is_not_waited_for() -> None:
    script = Script(policy=ONE_LAP)
    with pytest.raises(errors.NoQuorum, match="the retry budget is used up"):
        script.run(READ, lambda node, number: NO_QUORUM)
    assert len(script.sends) == 3
    assert sum(script.pauses) <= script.policy.backoff_first


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=200))
def test_a_budget_never_allows_more_than_was_saved_and_earned(events: list[tuple[float, bool]]) -> None:
    policy = ClientPolicy(retries_saved=5, retries_per_second=0.5, retries_per_request=0.1)
    now, earned, spent = 0.0, 0, 0
    budget = RetryBudget(policy, now)
    for passed, is_request in events:
        now += passed
        if is_request:
            budget.earn()
            earned += 1
        elif not budget.wait(now):
            budget.spend()
            spent += 1
        else:
            assert not budget.wait(now + budget.wait(now) + 1e-6)
    assert spent <= 5 + 0.5 * now + 0.1 * earned + 1e-6


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (problem(400, "malformed"), errors.Malformed),
        (problem(401, "unauthenticated"), errors.Unauthenticated),
        (problem(403, "not-permitted"), errors.NotPermitted),
        (problem(405, "method-not-allowed"), errors.MethodNotAllowed),
        (problem(409, "token-collision"), errors.TokenCollision),
        (problem(413, "too-large"), errors.TooLarge),
        (problem(422, "not-tokenizable"), errors.NotTokenizable),
        (problem(500, "internal"), errors.Internal),
        (problem(418, "unheard-of"), errors.UnexpectedAnswer),
        (Reply(404, None, b"<html>"), errors.UnexpectedAnswer),
        (Reply(302, None, b""), errors.UnexpectedAnswer),
        (NoReply(Failure.OVERLONG, ""), errors.UnexpectedAnswer),
        (NoReply(Failure.FOREIGN, ""), errors.UnexpectedAnswer),
    ],
)
def test_what_no_retry_can_help_is_raised_at_once(reply: Reply | NoReply, kind: type[errors.QuorumVaultError]) -> None:
    script = Script()
    with pytest.raises(kind, match="sending it again does not help") as caught:
        script.run(READ, lambda node, number: reply)
    (send,) = script.sends
    assert [asked.node for asked in caught.value.asked] == ["http://n1"]
    assert (caught.value.request_id, caught.value.retryable) == (send.headers["X-Request-ID"], False)
    assert send.headers["X-Request-ID"] in str(caught.value)
    assert ("does not carry the X-Request-ID" in str(caught.value)) == (reply == NoReply(Failure.FOREIGN, ""))


@pytest.mark.parametrize("reply", [NO_QUORUM, problem(503, "draining"), problem(429, "busy"), Reply(502, None, b"<html>")])
def test_what_a_retry_can_help_is_retried_under_the_same_request_id(reply: Reply) -> None:
    script = Script()
    script.asks({1: reply}, call=WRITE)
    assert script.asked == ["n1", "n2"]
    assert len({send.headers["X-Request-ID"] for send in script.sends}) == 1


def test_the_error_is_the_last_that_a_node_told() -> None:
    script = Script(policy=ONE_LAP)
    with pytest.raises(errors.NoQuorum) as caught:
        script.run(READ, lambda node, number: NO_QUORUM if number == 1 else REFUSED)
    assert not isinstance(caught.value, errors.Unreachable)
    assert [outcome for _, outcome in caught.value.asked] == ["503 no-quorum", *["no connection (connection refused)"] * 2]
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([REFUSED, REFUSED, REFUSED], "none"),
        ([SILENT, REFUSED, REFUSED], "unknown"),
        ([BROKEN, REFUSED, REFUSED], "unknown"),
        ([problem(503, "no-quorum", outcome="none"), REFUSED, REFUSED], "none"),
        ([NO_QUORUM, problem(503, "no-quorum", outcome="none"), REFUSED], "unknown"),
    ],
)
def test_the_outcome_of_a_write_is_none_only_if_no_try_may_have_stored_anything(
    outcomes: list[Reply | NoReply], expected: str
) -> None:
    script = Script(policy=ONE_LAP)
    with pytest.raises(errors.NoQuorum) as caught:
        script.run(WRITE, lambda node, number: outcomes[number - 1])
    assert caught.value.outcome == expected


def test_without_a_key_nothing_is_sent() -> None:
    script = Script()
    attempts = Attempts(script.nodes, script.policy, {}, None, script.clock, random.Random(1))
    with pytest.raises(errors.Unauthenticated, match="QUORUMVAULT_API_KEY"):
        next(attempts.request(READ))
