"""Large batches are sent in parts: in order, under one epoch, and no part larger than a node may take at once."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto.keys import Keyring
from quorumvault.errors import TooLarge
from quorumvault.model import Owner
from quorumvault.protocol import operations
from quorumvault.protocol.messages import Get, Put, RoundId
from quorumvault.protocol.operations import PART_ITEMS
from quorumvault.protocol.read import Open, ReadResult
from quorumvault.protocol.rounds import Lost, TooMuch
from quorumvault.protocol.steps import QuorumLost, Steps
from quorumvault.protocol.write import Adopt, Committed

OWNER = Owner("clinic")
KEYRING = Keyring("m1", bytes(range(32)))
ROUND, VIEW = RoundId(b"d" * 16, b"boot", 1), (1, bytes(16))


Sizes = list[int]


def run(steps: Steps[Any], decide: Callable[[int, Any], object]) -> tuple[Any, list[Any]]:
    """Drive an operation; ``decide(number, request)`` gives the decision of each round. Return its result and the requests."""
    decision: object = None
    requests: list[Any] = []
    try:
        while True:
            requests.append(steps.send(decision).request)
            decision = decide(len(requests) - 1, requests[-1])
    except StopIteration as end:
        return end.value, requests


def tokenize(
    canonicals: Sequence[bytes], decide: Callable[[int, Put], object] = lambda number, put: Committed()
) -> tuple[operations.Written, list[Put]]:
    return run(operations.tokenize(OWNER, canonicals, KEYRING, b"h" * 11, 1), decide)


def held(get: Get, size: int = 30) -> ReadResult:
    return ReadResult(VIEW, [digest.ljust(size, b".") for digest in get.digests], {})


def read(
    digests: list[bytes], most: int = PART_ITEMS, size: int = 30, take: Callable[[int], None] = lambda size: None
) -> tuple[list[Any], Sizes]:
    """Read from nodes that hold records of ``size`` and answer with at most ``most``. Return the records and request sizes."""
    steps = operations.read_records(OWNER, [1] * len(digests), digests, KEYRING, take)
    found, gets = run(steps, lambda number, get: TooMuch() if len(get.digests) > most else held(get, size))
    return found, [len(get.digests) for get in gets]


SMALL = 600
sizes = st.lists(st.sampled_from([0, 1, SMALL // 3, SMALL // 2, SMALL, SMALL + 1]), max_size=12)
VALUES = [b"%d" % number for number in range(2 * PART_ITEMS + 5)]
DIGESTS = [number.to_bytes(20, "big") for number in range(PART_ITEMS + 100)]


@given(sizes)
def test_parts_have_all_values_in_order_and_no_more_bytes_than_one_that_is_too_large_by_itself(sizes: Sizes) -> None:
    canonicals = [bytes(size) for size in sizes]
    with mock.patch.object(operations, "PART_BYTES", SMALL):
        written, puts = tokenize(canonicals)
    assert written.digests == KEYRING.epoch_keys(OWNER, 1).digests(canonicals)
    assert [digest for put in puts for digest in put.digests] == written.digests
    parts = iter(sizes)
    for put in puts:
        in_part = [next(parts) for _ in put.digests]
        assert sum(in_part) <= SMALL or len(in_part) == 1


def test_parts_have_a_bounded_number_of_values() -> None:
    written, puts = tokenize(VALUES, lambda number, put: Committed(frozenset({0} if number == 1 else ())))
    assert [len(put.digests) for put in puts] == [PART_ITEMS, PART_ITEMS, 5]
    assert written.collided == {PART_ITEMS}


def test_a_batch_of_nothing_is_one_round_all_the_same() -> None:
    assert len(tokenize([])[1]) == 1
    assert read([]) == ([], [0])


def test_a_part_that_meets_the_fence_takes_all_of_the_batch_to_the_later_epoch() -> None:
    values = VALUES[: PART_ITEMS + 1]
    written, puts = tokenize(values, lambda number, put: Adopt(7, "m1") if number == 1 else Committed())
    assert [(put.epoch, len(put.digests)) for put in puts] == [(1, PART_ITEMS), (1, 1), (7, PART_ITEMS), (7, 1)]
    assert (written.epoch, written.digests) == (7, KEYRING.epoch_keys(OWNER, 7).digests(values))


def test_a_part_that_is_lost_loses_the_batch() -> None:
    with pytest.raises(QuorumLost):
        tokenize(VALUES[: PART_ITEMS + 1], lambda number, put: Lost() if number else Committed())


def test_many_tokens_are_read_in_parts_and_given_back_in_order() -> None:
    assert read(DIGESTS) == ([digest.ljust(30, b".") for digest in DIGESTS], [PART_ITEMS, 100])


def test_what_does_not_fit_into_one_reply_is_asked_for_in_smaller_parts_from_then_on() -> None:
    found, asked = read(DIGESTS, most=1000)
    assert found == [digest.ljust(30, b".") for digest in DIGESTS]
    assert asked[:3] == [PART_ITEMS, PART_ITEMS // 2, PART_ITEMS // 4 if PART_ITEMS // 4 > 1000 else 1000]
    assert set(asked[3:-1]) == {asked[-2]}


def test_a_record_that_fits_into_no_reply_is_too_large() -> None:
    asked: Sizes = []

    def refuse(number: int, get: Get) -> TooMuch:
        asked.append(len(get.digests))
        return TooMuch()

    with pytest.raises(TooLarge, match="larger than what a node reads at once"):
        run(operations.read_records(OWNER, [1] * 5, DIGESTS[:5], KEYRING, lambda size: None), refuse)
    assert asked == [5, 2, 1]


def test_the_caller_is_told_of_each_part_and_may_end_the_read() -> None:
    taken: Sizes = []

    def take(size: int) -> None:
        taken.append(size)
        if sum(taken) > 500:
            raise TooLarge("that is enough")

    read(DIGESTS[:4], most=2, size=100, take=take)
    assert taken == [200, 200]
    taken.clear()
    with pytest.raises(TooLarge, match="enough"):
        read(DIGESTS[:11], most=2, size=100, take=take)
    assert taken == [200, 200, 200]


def test_what_is_not_there_takes_no_room() -> None:
    taken: Sizes = []
    absent: list[bytes | Open | None] = [None, Open.UNAVAILABLE]
    steps = operations.read_records(OWNER, [1, 1], DIGESTS[:2], KEYRING, taken.append)
    assert run(steps, lambda number, get: ReadResult(VIEW, absent, {}))[0] == absent
    assert taken == [0]
