"""How many requests get in, and how many bytes they hold."""

import asyncio
from contextlib import ExitStack, closing, suppress

import pytest

from quorumvault.config.limits import Limits
from quorumvault.errors import Busy, Draining
from quorumvault.model import Owner
from quorumvault.server.http.admission import Admission, Phase

LIMITS = Limits(in_flight=2, memory_bytes=200, key_share=100)
CLINIC, LAB = Owner("clinic"), Owner("lab")


def test_places_are_given_back_whatever_happens() -> None:
    admission = Admission(LIMITS)
    with suppress(KeyError), closing(admission.enter(CLINIC, 60, None)):
        assert (admission.in_flight, admission.memory.held) == (1, 60)
        raise KeyError
    assert (admission.in_flight, admission.memory.held) == (0, 0)


def test_one_request_too_many_is_refused() -> None:
    admission = Admission(LIMITS)
    with closing(admission.enter(CLINIC, 0, None)), closing(admission.enter(CLINIC, 0, None)):
        with pytest.raises(Busy) as refused:
            admission.enter(CLINIC, 0, None)
        assert refused.value.retry_after == 1
    with closing(admission.enter(CLINIC, 0, None)):
        assert admission.in_flight == 1


def test_an_owner_has_its_share_of_the_places_and_others_have_the_rest() -> None:
    admission = Admission(Limits(in_flight=8, key_share=50))
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(closing(admission.enter(CLINIC, 0, None)))
        with pytest.raises(Busy, match="owner clinic has 4 requests under way here") as refused:
            admission.enter(CLINIC, 0, None)
        assert refused.value.retry_after == 1
        for _ in range(4):
            held.enter_context(closing(admission.enter(LAB, 0, None)))
        with pytest.raises(Busy, match="8 requests are under way here"):
            admission.enter(Owner("third"), 0, None)
    with closing(admission.enter(CLINIC, 0, None)):
        assert admission.in_flight == 1


def test_a_place_that_finds_no_memory_for_its_body_is_given_back() -> None:
    admission = Admission(Limits(memory_bytes=100))
    with closing(admission.enter(CLINIC, 50, None)), pytest.raises(Busy):
        admission.enter(LAB, 51, None)
    assert (admission.in_flight, admission.memory.held) == (0, 0)


def test_a_place_is_given_back_once() -> None:
    admission = Admission(LIMITS)
    first, second = admission.enter(CLINIC, 10, None), admission.enter(CLINIC, 20, None)
    first.close()
    first.close()
    assert (admission.in_flight, admission.memory.held) == (1, 20)
    second.close()
    assert (admission.in_flight, admission.memory.held) == (0, 0)


def test_a_node_leaves_before_it_drains() -> None:
    admission = Admission(LIMITS)
    admission.announce_stop()
    with closing(admission.enter(CLINIC, 0, None)):
        assert admission.phase is Phase.LEAVING
    admission.refuse_new()
    with pytest.raises(Draining) as refused:
        admission.enter(CLINIC, 0, "none")
    assert (refused.value.outcome, refused.value.retry_after) == ("none", 1)


async def test_idle_waits_for_the_last_request() -> None:
    admission = Admission(LIMITS)
    first, second = admission.enter(CLINIC, 0, None), admission.enter(CLINIC, 0, None)
    waiting = asyncio.create_task(admission.idle())
    first.close()
    await asyncio.sleep(0)
    assert not waiting.done()
    second.close()
    await waiting
    await admission.idle()
