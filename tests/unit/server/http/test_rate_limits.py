"""How often one key may ask, and about how many values: at once, on average, and after the wait that it was told."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.api_keys import ApiKey, Rates
from quorumvault.errors import RateLimited, TooManyItems
from quorumvault.server.http.rate_limits import Allowances, Bucket
from tests.rigs.vault import CLINIC, Clock, api_key

DAY = 86_400


def limited(rates: Rates, name: str = "slow") -> ApiKey:
    return api_key(name, CLINIC, rates=rates)


def wait_of(allowances: Allowances, key: ApiKey, values: int | None = None, says: str | None = None) -> int:
    """The seconds that a refusal tells the caller to wait: for a request, or for one about ``values`` values."""
    spend = partial(allowances.spend_request, key) if values is None else partial(allowances.spend_values, key, values)
    with pytest.raises(RateLimited, match=says) as refused:
        spend()
    assert refused.value.retry_after is not None
    return refused.value.retry_after


def test_a_key_without_a_rate_may_ask_as_often_as_it_likes() -> None:
    allowances = Allowances(Clock())
    for _ in range(1000):
        allowances.spend_request(limited(Rates()))
        allowances.spend_values(limited(Rates()), 10_000)


def test_a_rate_is_a_second_s_worth_at_once_and_then_what_comes_in() -> None:
    clock = Clock()
    allowances, key = Allowances(clock), limited(Rates(2))
    allowances.spend_request(key)
    allowances.spend_request(key)
    assert wait_of(allowances, key, says="key slow may make 2 requests a second; wait 1 s") == 1
    clock.now += 0.5
    allowances.spend_request(key)
    assert wait_of(allowances, key) == 1
    clock.now += 3600
    allowances.spend_request(key)
    allowances.spend_request(key)
    assert wait_of(allowances, key) == 1


def test_less_than_one_request_a_second_waits_longer() -> None:
    clock = Clock()
    allowances, key = Allowances(clock), limited(Rates(0.1))
    allowances.spend_request(key)
    assert wait_of(allowances, key) == 10
    clock.now += 10
    allowances.spend_request(key)


def test_keys_have_buckets_of_their_own_and_so_have_requests_and_values() -> None:
    allowances = Allowances(Clock())
    both = Rates(1, 10)
    allowances.spend_request(limited(both, "one"))
    allowances.spend_values(limited(both, "one"), 10)
    allowances.spend_values(limited(both, "two"), 10)
    allowances.spend_request(limited(both, "two"))
    assert wait_of(allowances, limited(both, "one"), says="requests") == 1
    assert wait_of(allowances, limited(both, "one"), 1, "10 values a second") == 1


def test_a_batch_of_more_than_a_second_s_worth_goes_through_and_is_paid_off_before_the_next() -> None:
    clock = Clock()
    allowances, key = Allowances(clock), limited(Rates(None, 1000))
    for _ in range(3):
        allowances.spend_values(key, 10_000)
        assert wait_of(allowances, key, 10_000) == 10
        assert wait_of(allowances, key, 1) == 10  # 9 and a thousandth, rounded up to whole seconds
        clock.now += 9.5
        assert wait_of(allowances, key, 10_000) == 1
        allowances.spend_values(key, 500)
        clock.now += 1


def test_more_than_a_day_has_is_never_let_through_and_said_to_be_so() -> None:
    allowances, key = Allowances(Clock()), limited(Rates(None, 10, 100))
    with pytest.raises(TooManyItems, match="key slow may ask about 100 values a day, and these are 101: send fewer at once"):
        allowances.spend_values(key, 101)
    allowances.spend_values(key, 100)  # the refused ones cost nothing


def test_a_day_s_worth_comes_in_through_the_day() -> None:
    clock = Clock()
    allowances, key = Allowances(clock), limited(Rates(None, None, 24))
    allowances.spend_values(key, 24)
    assert wait_of(allowances, key, 1) == 3600
    clock.now += 3600
    allowances.spend_values(key, 1)
    assert wait_of(allowances, key, 24) == DAY


def test_the_wait_is_for_all_that_is_wanted_and_who_has_to_wait_pays_for_none_of_it() -> None:
    clock = Clock()
    allowances, key = Allowances(clock), limited(Rates(None, 10, 86_400))
    allowances.spend_values(key, 10)
    assert wait_of(allowances, key, 10) == 1
    clock.now += 1
    for _ in range(8639):
        allowances.spend_values(key, 10)
        clock.now += 1
    # The day's allowance is used up except for what came in meanwhile, and one second's allowance is there.
    assert wait_of(allowances, limited(Rates(None, 10, 86_400)), 86_400) > 1
    allowances.spend_values(key, 10)


def test_nothing_asked_costs_nothing_even_in_debt() -> None:
    allowances, key = Allowances(Clock()), limited(Rates(None, 1, 100))
    allowances.spend_values(key, 50)
    allowances.spend_values(key, 0)


def test_another_rate_counts_from_when_it_is_read() -> None:
    clock = Clock()
    allowances = Allowances(clock)
    allowances.spend_values(limited(Rates(None, 100)), 1000)
    assert wait_of(allowances, limited(Rates(None, 10)), 1) == 91  # 900 of debt, and one value, at 10 a second
    assert wait_of(allowances, limited(Rates(None, 900)), 1) == 2
    allowances.spend_values(limited(Rates()), 1)


RATES = st.floats(0.001, 1e6)
STEPS = st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 100_000)), min_size=1, max_size=40)


@given(rate=RATES, seconds=st.sampled_from([1.0, 60.0, 86_400.0]), steps=STEPS)
def test_in_any_stretch_of_time_no_more_goes_than_comes_in_a_full_bucket_and_the_last_debt(
    rate: float, seconds: float, steps: list[tuple[float, int]]
) -> None:
    now, most = 1000.0, rate * seconds
    bucket, taken = Bucket(most, now), list[tuple[float, int]]()
    for pause, amount in steps:
        now += pause
        if bucket.wait(amount, rate, most, now) == 0:
            bucket.take(amount)
            taken.append((now, amount))
    for first, (start, _) in enumerate(taken):
        for last in range(first, len(taken)):
            end, largest = taken[last][0], taken[last][1]
            passed = sum(amount for _, amount in taken[first : last + 1])
            allowed = most + (end - start) * rate + max(0.0, largest - most)
            assert passed <= allowed + 1e-6 * (rate * (last - first + 2) + allowed)


@given(rate=RATES, seconds=st.sampled_from([1.0, 86_400.0]), steps=STEPS)
def test_whoever_waits_as_long_as_it_was_told_gets_through_and_half_a_second_earlier_does_not(
    rate: float, seconds: float, steps: list[tuple[float, int]]
) -> None:
    now, most = 1000.0, rate * seconds
    bucket = Bucket(most, now)
    for pause, amount in steps:
        now += pause
        wait = bucket.wait(amount, rate, most, now)
        if wait > 0.75:
            assert bucket.wait(amount, rate, most, now + wait - 0.5) > 0
        now += math.ceil(wait)
        assert bucket.wait(amount, rate, most, now) == 0
        bucket.take(amount)
