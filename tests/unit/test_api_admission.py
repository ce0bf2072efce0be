"""How many requests get in, how many bytes they hold, and how often one key may ask."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack

import pytest

from quorumvault.api.admission import Admission, Phase
from quorumvault.api.rates import Rates
from quorumvault.config import Limits
from quorumvault.errors import Busy, Draining, RateLimited
from tests.apirig import CLINIC, Clock, api_key

LIMITS = Limits(in_flight=2, memory_bytes=200, key_share=100)
KEY, OTHER = "3fq7tzd2", "k2222222"


def test_places_are_given_back_whatever_happens() -> None:
    admission = Admission(LIMITS)
    with contextlib.suppress(KeyError), admission.enter(KEY, 60, None):
        assert (admission.in_flight, admission.memory.held) == (1, 60)
        raise KeyError
    assert (admission.in_flight, admission.memory.held) == (0, 0)


def test_one_request_too_many_is_refused() -> None:
    admission = Admission(LIMITS)
    with admission.enter(KEY, 0, None), admission.enter(KEY, 0, None):
        with pytest.raises(Busy) as refused, admission.enter(KEY, 0, None):
            pass
        assert refused.value.retry_after == 1
    with admission.enter(KEY, 0, None):
        assert admission.in_flight == 1


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


def test_a_place_that_finds_no_memory_for_its_body_is_given_back() -> None:
    admission = Admission(Limits(memory_bytes=100))
    with pytest.raises(Busy), admission.enter(KEY, 50, None), admission.enter(OTHER, 1, None):
        pass
    assert (admission.in_flight, admission.memory.held) == (0, 0)


def test_a_place_is_given_back_once() -> None:
    admission = Admission(LIMITS)
    first, second = admission.enter(KEY, 10, None), admission.enter(KEY, 20, None)
    first.release()
    first.release()
    assert (admission.in_flight, admission.memory.held) == (1, 20)
    second.release()
    assert (admission.in_flight, admission.memory.held) == (0, 0)


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
