"""Hedges: the wait before one, what they may cost, and which replicas reads avoid."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.server.coordinator.hedging import BURST, EARNED, Hedge, Hedging, Read, Waits

LEAST, MOST = 0.05, 1.0
OWN, PEERS = "n1", ("n2", "n3")

seconds = st.floats(0.0, 3.0)


@dataclass
class Reads:
    """Reads of one coordinator, one every ``every`` seconds, whether or not earlier ones have ended; ``takes(node, now)`` is the
    time that a replica needs to answer. Events come in a coordinator's order: ask two, hedge, decide with the second answer."""

    takes: Callable[[str, float], float]
    every: float = 0.01
    told: Counter[Hedge] = field(default_factory=Counter)
    times: list[tuple[float, float]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def run(self, until: float, keys: int = 1) -> None:
        hedging = Hedging(LEAST, MOST, lambda hedge: self.told.update([hedge]))
        numbers, turns = count(), cycle(PEERS)
        events: list[tuple[float, int, Callable[[float], None]]] = []

        def at(when: float, event: Callable[[float], None]) -> None:
            heapq.heappush(events, (when, next(numbers), event))

        def begin(now: float) -> None:
            if now + self.every < until:
                at(now + self.every, begin)
            first = next(turns)
            unasked = sorted((OWN, *PEERS), key=lambda node: (hedging.is_aside(node), node != OWN, node != first))
            read, waiting, answers = hedging.read(keys, now), set[str](), list[str]()

            def ask(now: float) -> None:
                node = unasked.pop(0)
                self.asked[node] += 1
                waiting.add(node)
                at(now + self.takes(node, now), lambda now: answer(node, now))

            def answer(node: str, now: float) -> None:
                waiting.discard(node)
                read.answered(node, now)
                answers.append(node)
                if len(answers) == 2:
                    self.times.append((began, now - began))
                    read.decided(now)

            def overdue(now: float) -> None:
                if len(answers) == 2 or not unasked:
                    return
                if read.overdue(tuple(waiting), unasked[0], now):
                    ask(now)
                else:
                    at(now + read.wait, overdue)

            began = now
            ask(now)
            ask(now)
            if hedging.tries(unasked[0], now):
                ask(now)
            at(now + read.wait, overdue)

        at(0.0, begin)
        while events:
            when, _, event = heapq.heappop(events)
            event(when)

    def slower_than(self, bound: float) -> int:
        return sum(took > bound for _, took in self.times)


def test_a_replica_that_stops_holds_up_only_those_reads_that_had_asked_it_before_it_was_late() -> None:
    reads = Reads(lambda node, now: 60.0 if node == "n2" and 5 <= now < 7 else 0.001)
    reads.run(10.0)
    held_up = [(began, took) for began, took in reads.times if took > 0.01]
    assert held_up
    assert all(5 <= began <= 5 + LEAST + 0.01 for began, _ in held_up)
    assert all(took <= LEAST + 0.002 for _, took in held_up)
    assert reads.told[Hedge.PASSED_OVER] == len(held_up)


def test_a_read_that_is_to_wait_for_nothing_waits_a_moment_all_the_same() -> None:
    """timeouts.hedge may be 0. Without a wait, the event loop would be called again and again until the answer comes."""
    assert Hedging(0.0, MOST, lambda hedge: None).read(1, 0.0).wait >= 0.001


def test_a_stop_is_passed_over_though_the_budget_is_spent() -> None:
    """The other replicas answer meanwhile, so the request to the third is no hedge."""
    told: list[Hedge] = []
    hedging = Hedging(LEAST, MOST, told.append)
    reads = [hedging.read(1, 1.0) for _ in range(100)]
    for read in reads:
        read.answered("n1", 1.01)
    assert all(read.overdue(["n2"], "n3", 1.0 + read.wait) for read in reads)
    assert told == [Hedge.PASSED_OVER] * 100


def test_a_replica_that_was_asked_alone_is_given_up_when_it_answers_no_read() -> None:
    told: list[Hedge] = []
    hedging = Hedging(LEAST, MOST, told.append)
    read = hedging.read(1, 1.0)
    assert read.hangs(OWN, 1.0 + LEAST)
    assert hedging.is_hanging(OWN)
    assert hedging.is_aside(OWN)
    assert told == [Hedge.PASSED_OVER]
    read.answered(OWN, 1.4)
    assert not hedging.is_hanging(OWN)
    assert hedging.is_aside(OWN)  # the replica was late, so reads by quorum ask it last


def test_a_replica_that_was_asked_alone_is_waited_for_while_it_answers_other_reads() -> None:
    told: list[Hedge] = []
    hedging = Hedging(LEAST, MOST, told.append)
    read = hedging.read(1, 1.0)
    hedging.read(1, 1.0).answered(OWN, 1.0 + LEAST / 2)
    assert not read.hangs(OWN, 1.0 + LEAST)
    assert read.hangs(OWN, 1.0 + 2 * LEAST)
    assert told == [Hedge.PASSED_OVER]


@pytest.mark.parametrize("slow", [OWN, *PEERS])
def test_a_slow_replica_does_not_hold_up_every_second_read(slow: str) -> None:
    reads = Reads(lambda node, now: 0.4 if node == slow and now >= 2 else 0.001)
    reads.run(60.0)
    assert reads.slower_than(0.02) < len(reads.times) / 100
    assert reads.asked[slow] < reads.asked.total() / 4


def test_a_replica_that_was_slow_is_asked_again_when_it_is_no_more() -> None:
    reads = Reads(lambda node, now: 0.4 if node == "n2" and now < 20 else 0.001)
    reads.run(20.0)
    slow = reads.asked["n2"]
    again = Reads(reads.takes)
    again.run(60.0)
    assert again.asked["n2"] - slow > 0.3 * 3_000


@pytest.mark.parametrize("takes", [0.06, 0.2, 0.9, 1.8])
@pytest.mark.parametrize("own", [0.75, 1.0, 1.25])
@pytest.mark.parametrize("every", [0.01, 0.25, 3.0])
def test_where_all_are_slow_few_reads_ask_three(takes: float, own: float, every: float) -> None:
    reads = Reads(lambda node, now: takes * own if node == OWN else takes, every)
    reads.run(every * 2_000)
    allowed = BURST + EARNED * len(reads.times) + 3
    assert reads.asked.total() - 2 * len(reads.times) <= allowed


def test_both_peers_take_turns() -> None:
    reads = Reads(lambda node, now: 0.001)
    reads.run(10.0)
    assert reads.asked["n2"] == pytest.approx(reads.asked["n3"], abs=1)
    assert not reads.told


@given(st.lists(st.booleans(), max_size=400))
def test_hedges_are_a_twentieth_of_reads_besides_what_was_saved_up(steps: list[bool]) -> None:
    """Each step is True if a read begins, or False if the last read is overdue while all others answer."""
    told: Counter[Hedge] = Counter()
    hedging = Hedging(LEAST, MOST, lambda hedge: told.update([hedge]))
    begun, now, read = 1, 0.0, hedging.read(1, 0.0)
    for begins in steps:
        now += 0.01
        if begins:
            begun, read = begun + 1, hedging.read(1, now)
        else:
            hedging.hear("n2", now, in_time=False)
            hedging.tries("n3", now)
            read.overdue(["n2"], "n3", now)
    assert told[Hedge.SENT] + told[Hedge.TRIED] <= BURST + EARNED * begun + 1e-6


def _overdue_reads() -> Iterator[tuple[Hedging, Read]]:
    hedging = Hedging(LEAST, MOST, lambda hedge: None)
    for number in count():
        now = float(number)
        read = hedging.read(1, now)
        hedging.hear("n2", now + 0.01, in_time=False)
        yield hedging, read


def test_what_is_withheld_is_earned_by_later_reads() -> None:
    asked = [read.overdue(["n2"], "n3", 0.1 + number) for number, (_, read) in zip(range(1000), _overdue_reads(), strict=False)]
    assert asked[:10] == [True] * 10
    assert sum(asked) == pytest.approx(BURST + EARNED * 1000, abs=1)


@given(st.lists(st.tuples(seconds, st.floats(0.0, 30.0)), max_size=300))
def test_a_wait_is_within_its_bounds(taken: list[tuple[float, float]]) -> None:
    waits, now = Waits(LEAST, MOST), 0.0
    for took, later in taken:
        now += later
        waits.add(took, now)
        assert LEAST <= waits.wait(now) <= MOST


@given(st.lists(seconds, min_size=1, max_size=1_000))
def test_few_reads_take_longer_than_the_wait(taken: list[float]) -> None:
    """No more reads exceed the wait than it allows for, and it is the shortest such wait, to within one histogram bucket."""
    waits = Waits(LEAST, 10.0)
    for took in taken:
        waits.add(took, 0.0)
    wait = waits.wait(0.0)
    assert sum(took > wait for took in taken) <= max(2, len(taken) / 100)
    assert wait == LEAST or sum(took * 1.2501 >= wait for took in taken) > max(2, len(taken) / 100)


def test_a_wait_follows_what_is_recent() -> None:
    waits = Waits(LEAST, MOST)
    for number in range(1_000):
        waits.add(0.3, number / 100)
    assert 0.3 <= waits.wait(10.0) < 0.4
    for number in range(3_000):
        waits.add(0.002, 10 + number / 100)
    assert waits.wait(40.0) == LEAST


def test_a_wait_is_as_at_first_once_all_is_long_ago() -> None:
    waits = Waits(LEAST, MOST)
    for _ in range(10):
        waits.add(0.3, 0.0)
    assert waits.wait(9.0) > LEAST
    assert waits.wait(30.0) == LEAST


def test_reads_wait_as_long_as_reads_of_their_size_take() -> None:
    hedging = Hedging(LEAST, MOST, lambda hedge: None)
    for _ in range(10):
        hedging.read(1_000, 0.0).decided(0.4)
    assert hedging.read(1_024, 0.5).wait > 0.3
    assert [hedging.read(keys, 0.5).wait for keys in (0, 1, 512, 1_025, 1 << 30)] == [LEAST] * 5


def test_a_replica_that_refuses_is_set_aside_and_tried_again_at_longer_and_longer_intervals() -> None:
    hedging = Hedging(LEAST, MOST, lambda hedge: None)
    tried, now = [], 0.0
    hedging.read(1, now).refused("n2", now)
    while now < 60:
        now += 0.01
        read = hedging.read(1, now)
        if hedging.tries("n2", now):
            tried.append(now)
            read.refused("n2", now + 0.001)
    intervals = [after - before for before, after in pairwise(tried)]
    assert intervals[0] == pytest.approx(0.2, abs=0.011)
    assert all(after > before - 0.02 for before, after in pairwise(intervals))
    assert max(intervals) == pytest.approx(5.0, abs=0.02)
    hedging.read(1, now).answered("n2", now + 0.001)
    assert not hedging.is_aside("n2")
