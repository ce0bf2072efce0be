"""What all connections together may do in one turn of the event loop."""

from collections.abc import Callable

import pytest

from quorumvault.server.http.turnstile import REQUESTS, WORK, Turnstile


class Loop:
    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Waiter:
    """A connection that begins one request whenever it is admitted."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self.turns = 0

    def on_turn(self) -> None:
        if self._turnstile.admit(self):
            self._turnstile.requests += 1
            self.turns += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def turnstile(loop: Loop) -> Turnstile:
    return Turnstile(loop.call_soon)


def waiters(turnstile: Turnstile, count: int) -> list[Waiter]:
    made = [Waiter(turnstile) for _ in range(count)]
    for waiter in made:
        waiter.on_turn()
    return made


def test_no_turn_begins_more_requests_than_it_may_and_all_have_theirs_in_order(loop: Loop, turnstile: Turnstile) -> None:
    made = waiters(turnstile, 3 * REQUESTS)
    for turn in range(1, 4):
        assert [waiter.turns for waiter in made] == [1] * turn * REQUESTS + [0] * (3 - turn) * REQUESTS
        loop.turn()
    loop.turn()
    assert loop.due == []


def test_work_is_bounded_too(loop: Loop, turnstile: Turnstile) -> None:
    first, second = Waiter(turnstile), Waiter(turnstile)
    assert turnstile.admit(first)
    turnstile.work += WORK
    assert not turnstile.is_open
    assert not turnstile.admit(second)
    loop.turn()
    assert second.turns == 1


def test_nobody_passes_those_who_wait(loop: Loop, turnstile: Turnstile) -> None:
    waiting, late = Waiter(turnstile), Waiter(turnstile)
    turnstile.wait(waiting)
    assert not turnstile.admit(late)
    loop.turn()
    assert (waiting.turns, late.turns) == (1, 1)


def test_one_that_waits_again_comes_after_the_others(loop: Loop, turnstile: Turnstile) -> None:
    class Greedy(Waiter):
        def on_turn(self) -> None:
            super().on_turn()
            self._turnstile.wait(self)

    greedy, other = Greedy(turnstile), Waiter(turnstile)
    turnstile.wait(greedy)
    turnstile.wait(other)
    loop.turn()
    assert (greedy.turns, other.turns) == (1, 1)


def test_one_that_has_left_is_not_called(loop: Loop, turnstile: Turnstile) -> None:
    gone = Waiter(turnstile)
    turnstile.wait(gone)
    turnstile.leave(gone)
    turnstile.leave(gone)
    loop.turn()
    assert (gone.turns, loop.due) == (0, [])
