"""Large batches go part by part: in order, under one epoch, and no part larger than a node may take at one go."""

from __future__ import annotations

from collections.abc import Callable
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


def run(steps: Steps[object], decide: Callable[[int, Put | Get], object]) -> object:
    """Drives an operation: ``decide(number, request)`` gives the decision of each round."""
    decision: object = None
    try:
        for number in range(10_000):
            request = steps.send(decision).request
            assert isinstance(request, Put | Get)
            decision = decide(number, request)
    except StopIteration as end:
        return end.value
    raise AssertionError("it does not end")


def tokenize(canonicals: list[bytes], decide: Callable[[int, Put], object]) -> object:
    return run(operations.tokenize(OWNER, canonicals, KEYRING, b"h" * 11, 1), decide)  # type: ignore[arg-type]


def read(digests: list[bytes], decide: Callable[[int, Get], object], take: Callable[[int], None] = lambda size: None) -> object:
    steps = operations.read_records(OWNER, [1] * len(digests), digests, KEYRING, take)
    return run(steps, decide)  # type: ignore[arg-type]


SMALL = 600
sizes = st.lists(st.sampled_from([0, 1, SMALL // 3, SMALL // 2, SMALL, SMALL + 1]), max_size=12)


@given(sizes)
def test_parts_have_all_values_in_order_and_no_more_bytes_than_one_that_is_too_large_by_itself(sizes: list[int]) -> None:
    canonicals = [bytes(size) for size in sizes]
    puts: list[Put] = []

    def commit(number: int, put: Put) -> Committed:
        puts.append(put)
        return Committed()

    with mock.patch.object(operations, "PART_BYTES", SMALL):
        written = tokenize(canonicals, commit)
    assert isinstance(written, operations.Written)
    assert written.digests == KEYRING.epoch_keys(OWNER, 1).digests(canonicals)
    assert [digest for put in puts for digest in put.digests] == written.digests
    parts = iter(sizes)
    for put in puts:
        in_part = [next(parts) for _ in put.digests]
        assert sum(in_part) <= SMALL or len(in_part) == 1


def test_parts_have_a_bounded_number_of_values() -> None:
    counts: list[int] = []

    def commit(number: int, put: Put) -> Committed:
        counts.append(len(put.digests))
        return Committed(frozenset({0}) if number == 1 else frozenset())

    written = tokenize([b"%d" % number for number in range(2 * PART_ITEMS + 5)], commit)
    assert counts == [PART_ITEMS, PART_ITEMS, 5]
    assert isinstance(written, operations.Written)
    assert written.collided == {PART_ITEMS}


def test_a_batch_of_nothing_is_one_round_all_the_same() -> None:
    rounds: list[int] = []

    def answer(number: int, request: Put | Get) -> object:
        rounds.append(number)
        return Committed() if isinstance(request, Put) else ReadResult(VIEW, [], {})

    tokenize([], answer)
    assert read([], answer) == []
    assert rounds == [0, 0]


def test_a_part_that_meets_the_fence_takes_all_of_the_batch_to_the_later_epoch() -> None:
    seen: list[tuple[int, int]] = []

    def fence(number: int, put: Put) -> object:
        seen.append((put.epoch, len(put.digests)))
        return Adopt(7, "m1") if number == 1 else Committed()

    canonicals = [b"%d" % number for number in range(PART_ITEMS + 1)]
    written = tokenize(canonicals, fence)
    assert seen == [(1, PART_ITEMS), (1, 1), (7, PART_ITEMS), (7, 1)]
    assert isinstance(written, operations.Written)
    assert (written.epoch, written.digests) == (7, KEYRING.epoch_keys(OWNER, 7).digests(canonicals))


def test_a_part_that_is_lost_loses_the_batch() -> None:
    with pytest.raises(QuorumLost):
        tokenize([b"%d" % number for number in range(PART_ITEMS + 1)], lambda number, put: Lost() if number else Committed())


DIGESTS = [number.to_bytes(20, "big") for number in range(PART_ITEMS + 100)]


def held(get: Get, size: int = 30) -> ReadResult:
    return ReadResult(VIEW, [digest.ljust(size, b".") for digest in get.digests], {})


def test_many_tokens_are_read_in_parts_and_given_back_in_order() -> None:
    asked: list[int] = []

    def answer(number: int, get: Get) -> ReadResult:
        asked.append(len(get.digests))
        return held(get)

    assert read(DIGESTS, answer) == [digest.ljust(30, b".") for digest in DIGESTS]
    assert asked == [PART_ITEMS, 100]


def test_what_does_not_fit_into_one_reply_is_asked_for_in_smaller_parts_from_then_on() -> None:
    asked: list[int] = []

    def answer(number: int, get: Get) -> object:
        asked.append(len(get.digests))
        return TooMuch() if len(get.digests) > 1000 else held(get)

    assert read(DIGESTS, answer) == [digest.ljust(30, b".") for digest in DIGESTS]
    assert asked[:3] == [PART_ITEMS, PART_ITEMS // 2, PART_ITEMS // 4 if PART_ITEMS // 4 > 1000 else 1000]
    assert set(asked[3:-1]) == {asked[-2]}


def test_a_record_that_fits_into_no_reply_is_too_large() -> None:
    asked: list[int] = []

    def answer(number: int, get: Get) -> object:
        asked.append(len(get.digests))
        return TooMuch()

    with pytest.raises(TooLarge, match="larger than what a node reads at once"):
        read(DIGESTS[:5], answer)
    assert asked == [5, 2, 1]


def test_the_caller_is_told_of_each_part_and_may_end_the_read() -> None:
    taken: list[int] = []

    def take(size: int) -> None:
        taken.append(size)
        if sum(taken) > 500:
            raise TooLarge("that is enough")

    def answer(number: int, get: Get) -> object:
        return TooMuch() if len(get.digests) > 2 else held(get, 100)

    assert isinstance(read(DIGESTS[:4], answer, take), list)
    assert taken == [200, 200]
    taken.clear()
    with pytest.raises(TooLarge, match="enough"):
        read(DIGESTS[:11], answer, take)
    assert taken == [200, 200, 200]


def test_what_is_not_there_takes_no_room() -> None:
    taken: list[int] = []
    absent: list[bytes | Open | None] = [None, Open.UNAVAILABLE]
    assert read(DIGESTS[:2], lambda number, get: ReadResult(VIEW, absent, {}), taken.append) == absent
    assert taken == [0]
