"""How many requests get in, how many bytes they hold, and how often one key may ask."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.api.admission import Admission, Phase
from quorumvault.api.rates import Rates
from quorumvault.config import Limits
from quorumvault.errors import Busy, Draining, RateLimited
from tests.apirig import CLINIC, Clock, api_key

LIMITS = Limits(in_flight=2, in_flight_bytes=100, key_share=100)
KEY, OTHER = "3fq7tzd2", "k2222222"


def test_places_are_given_back_whatever_happens() -> None:
    admission = Admission(LIMITS)
    with contextlib.suppress(KeyError), admission.enter(KEY, 60, None):
        assert (admission.in_flight, admission.in_flight_bytes) == (1, 60)
        raise KeyError
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_one_request_too_many_is_refused() -> None:
    admission = Admission(LIMITS)
    with admission.enter(KEY, 0, None), admission.enter(KEY, 0, None):
        with pytest.raises(Busy) as refused, admission.enter(KEY, 0, None):
            pass
        assert refused.value.retry_after == 1
    with admission.enter(KEY, 0, None):
        assert admission.in_flight == 1


def test_bytes_that_do_not_fit_are_refused_and_leave_nothing_behind() -> None:
    admission = Admission(LIMITS)
    with admission.enter(KEY, 60, None):
        with pytest.raises(Busy), admission.enter(KEY, 41, None):
            pass
        assert (admission.in_flight, admission.in_flight_bytes) == (1, 60)
        with admission.enter(KEY, 40, None):
            assert admission.in_flight_bytes == 100


def test_a_key_has_its_share_of_the_places_and_others_have_the_rest() -> None:
    admission = Admission(Limits(in_flight=8, key_share=50))
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(admission.enter(KEY, 0, None))
        with pytest.raises(Busy, match=f"key {KEY} has 4 requests under way here") as refused, admission.enter(KEY, 0, None):
            pass
        assert refused.value.retry_after == 1
        for _ in range(4):
            held.enter_context(admission.enter(OTHER, 0, None))
        with pytest.raises(Busy, match="8 requests are under way here"), admission.enter("third", 0, None):
            pass
    with admission.enter(KEY, 0, None):
        assert admission.in_flight == 1


def test_a_key_has_its_share_of_the_bytes_and_always_room_for_one_whole_body() -> None:
    body = 16 << 20
    for most, share, bodies in ((8 * body, 50, 4), (body, 50, 1), (2 * body, 10, 1)):
        admission = Admission(Limits(in_flight_bytes=most, key_share=share))
        with ExitStack() as held:
            for _ in range(bodies):
                held.enter_context(admission.enter(KEY, body, None))
            with pytest.raises(Busy), admission.enter(KEY, body, None):
                pass
            assert admission.in_flight_bytes == bodies * body
            place = held.enter_context(admission.enter(KEY, 0, None))
            with pytest.raises(Busy):
                place.hold(body)
        assert admission.in_flight_bytes == 0


def test_what_one_key_gave_back_it_may_have_again() -> None:
    admission = Admission(Limits(in_flight=4, key_share=50))
    for _ in range(10):
        with admission.enter(KEY, 10, None), admission.enter(KEY, 10, None):
            pass
    assert admission._by_key == {}


def test_a_body_that_grows_holds_the_most_it_had() -> None:
    admission = Admission(LIMITS)
    with admission.enter(KEY, 10, None) as place:
        for size in (5, 30, 20, 70):
            place.hold(size)
        assert admission.in_flight_bytes == 70
        with pytest.raises(Busy):
            place.hold(101)
        assert admission.in_flight_bytes == 70
    assert admission.in_flight_bytes == 0


def test_a_node_leaves_before_it_drains() -> None:
    admission = Admission(LIMITS)
    admission.announce_stop()
    with admission.enter(KEY, 0, None):
        assert admission.phase is Phase.LEAVING
    admission.refuse_new()
    with pytest.raises(Draining) as refused, admission.enter(KEY, 0, "none"):
        pass
    assert (refused.value.outcome, refused.value.retry_after) == ("none", 1)


def test_idle_waits_for_the_last_request() -> None:
    async def scene() -> list[str]:
        admission, order = Admission(LIMITS), list[str]()

        async def wait() -> None:
            await admission.idle()
            order.append("idle")

        with ExitStack() as second:
            with admission.enter(KEY, 0, None):
                second.enter_context(admission.enter(KEY, 0, None))
                waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            order.append("one is left")
        await waiting
        await admission.idle()
        return order

    assert asyncio.run(scene()) == ["one is left", "idle"]


@given(st.lists(st.integers(0, 120), max_size=20))
def test_what_is_counted_is_what_is_held(sizes: list[int]) -> None:
    admission = Admission(Limits(in_flight=5, in_flight_bytes=100, key_share=100))
    with ExitStack() as held:
        taken: list[int] = []
        for size in sizes:
            fits = len(taken) < 5 and sum(taken) + size <= 100
            try:
                held.enter_context(admission.enter(KEY, size, None))
            except Busy:
                assert not fits
            else:
                assert fits
                taken.append(size)
            assert (admission.in_flight, admission.in_flight_bytes) == (len(taken), sum(taken))
    assert (admission.in_flight, admission.in_flight_bytes) == (0, 0)


def test_a_key_without_a_rate_may_ask_as_often_as_it_likes() -> None:
    rates = Rates(Clock())
    for _ in range(1000):
        rates.spend(api_key("free", CLINIC))


def test_a_rate_is_a_second_s_worth_at_once_and_then_what_comes_in() -> None:
    clock = Clock()
    rates, key = Rates(clock), api_key("slow", CLINIC, rate=2)
    rates.spend(key)
    rates.spend(key)
    with pytest.raises(RateLimited, match="key slow may make 2 requests a second") as refused:
        rates.spend(key)
    assert refused.value.retry_after == 1
    clock.now += 0.5
    rates.spend(key)
    with pytest.raises(RateLimited):
        rates.spend(key)
    clock.now += 3600
    rates.spend(key)
    rates.spend(key)
    with pytest.raises(RateLimited):
        rates.spend(key)


def test_less_than_one_request_a_second_waits_longer() -> None:
    clock = Clock()
    rates, key = Rates(clock), api_key("slow", CLINIC, rate=0.1)
    rates.spend(key)
    with pytest.raises(RateLimited) as refused:
        rates.spend(key)
    assert refused.value.retry_after == 10
    clock.now += 10
    rates.spend(key)


def test_keys_have_buckets_of_their_own() -> None:
    rates = Rates(Clock())
    rates.spend(api_key("one", CLINIC, rate=1))
    rates.spend(api_key("two", CLINIC, rate=1))
    with pytest.raises(RateLimited):
        rates.spend(api_key("one", CLINIC, rate=1))
