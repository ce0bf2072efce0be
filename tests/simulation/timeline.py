"""Virtual time: a queue of events, and the event loops of simulated processes over it.

An event may belong to a process. Events of a dead process are dropped. Events of a stopped process wait until it goes on.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, events
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from typing import Any

import msgspec


class Timer(msgspec.Struct, eq=False):
    """A future event; ``call_at`` of a simulated loop returns it. A struct, since many are made, and structs are made faster."""

    owner: Schedule | None
    callback: Callable[..., object] | None
    args: tuple[Any, ...]

    def cancel(self) -> None:
        self.callback = None


class Timeline:
    """The time, in seconds from the beginning, and the future events. Events of one time happen in order of creation."""

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
        """Runs until no event is left, or until that time has come."""
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
    """One process's event loop: the part of asyncio that a coordinator needs, in virtual time."""

    def __init__(self, timeline: Timeline) -> None:
        self.alive = True
        self.stopped = False
        self.kept: list[Timer] = []
        self._timeline = timeline

    def go_on(self) -> None:
        """Goes on after a stop: events that came due meanwhile happen now, in their order."""
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
        """Runs the work at once: work of other threads takes no time."""
        done = self.create_future()
        done.set_result(func(*args))
        return done

    def get_debug(self) -> bool:
        return False


def drive(
    coroutine: Coroutine[Any, Any, object] | Generator[Any, None, object], done: Callable[[object, Exception | None], object]
) -> None:
    """Runs a coroutine that awaits futures of its process's loop; ``done`` is called with its result or its error."""

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
