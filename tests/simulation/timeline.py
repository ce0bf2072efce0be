"""Virtual time: a queue of events, and the event loops of simulated processes over it.

An event may belong to a process. It is dropped when that process is dead, and kept until it goes on when that process is stopped.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, events
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from typing import Any

import msgspec


class Timer(msgspec.Struct, eq=False):
    """An event to come; what ``call_at`` gives back on a simulated loop. A struct is made faster than an object, and many are."""

    owner: Schedule | None
    callback: Callable[..., object] | None
    args: tuple[Any, ...]

    def cancel(self) -> None:
        self.callback = None


class Timeline:
    """The time, in seconds from the beginning, and what will happen. Events of one time happen in the order they were made in."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0

    def at(self, when: float, owner: Schedule | None, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(owner, callback, args)
        self.push(when, timer)
        return timer

    def push(self, when: float, timer: Timer) -> None:
        self._made += 1
        heappush(self._heap, (when, self._made, timer))

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left to happen, or that time has come."""
        heap = self._heap
        try:
            while heap and heap[0][0] <= until:
                when, _, timer = heappop(heap)
                callback, owner = timer.callback, timer.owner
                if callback is None:
                    continue
                if owner is not None:
                    if not owner.alive:
                        continue
                    if owner.stopped:
                        owner.kept.append(timer)
                        continue
                    events._set_running_loop(owner)
                self.now = when
                self.events += 1
                callback(*timer.args)
        finally:
            events._set_running_loop(None)
        if until != float("inf"):
            self.now = until


class Schedule(asyncio.AbstractEventLoop):
    """One process's event loop: what a coordinator needs of asyncio, in virtual time."""

    def __init__(self, timeline: Timeline) -> None:
        self.alive = True
        self.stopped = False
        self.kept: list[Timer] = []
        self._timeline = timeline

    def go_on(self) -> None:
        """After a stop: what came due meanwhile happens now, in its order."""
        self.stopped = False
        kept, self.kept = self.kept, []
        for timer in kept:
            self._timeline.push(self._timeline.now, timer)

    def time(self) -> float:
        return self._timeline.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> Timer:  # type: ignore[override]
        return self._timeline.at(self._timeline.now, self, callback, *args)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: object = None
    ) -> Timer:
        return self._timeline.at(when, self, callback, *args)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: object = None
    ) -> Timer:
        return self._timeline.at(self._timeline.now + delay, self, callback, *args)

    def create_future(self) -> Future[Any]:
        return Future(loop=self)

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Future[Any]:  # type: ignore[override]
        """Other threads' work takes no time."""
        done = self.create_future()
        done.set_result(func(*args))
        return done

    def get_debug(self) -> bool:
        return False


def drive(
    coroutine: Coroutine[Any, Any, object] | Generator[Any, None, object], done: Callable[[object, Exception | None], object]
) -> None:
    """Runs a coroutine that awaits futures of its process's loop; ``done`` hears its result or its error."""

    def step(_: object = None) -> None:
        try:
            future = coroutine.send(None)
        except StopIteration as end:
            done(end.value, None)
        except Exception as error:
            done(None, error)
        else:
            future._asyncio_future_blocking = False
            future.add_done_callback(step)

    step()
