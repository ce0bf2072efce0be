"""One process that feeds one target, and reports the results. An input that kills the process is known by its number."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from random import Random
from typing import Protocol

from tests.fuzz.target import Figures, Target, Violation
from tests.fuzz.targets import made
from tests.rigs.reduced import reduced

#: Seconds between two progress messages.
_TELL = 0.5
#: The most attempts to shrink a failing input.
_SHRINK_TRIES = 300


@dataclass(frozen=True, slots=True)
class Order:
    """The inputs of a target from ``first`` on: ``count`` of them, or as many as fit into the seconds."""

    target: str
    seed: int
    first: int
    count: int | None
    seconds: float | None

    def is_over(self, next_input: int, seconds: float) -> bool:
        """Whether the order is done, if ``next_input`` is next after this many seconds."""
        is_last = self.count is not None and next_input >= self.first + self.count
        return is_last or (self.seconds is not None and seconds >= self.seconds)


@dataclass(frozen=True, slots=True)
class Found:
    """A failing input; ``data``: as it was made, or a smaller version that fails too."""

    index: int
    words: str
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Progress:
    """The results since the process was ready."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    figures: Figures = field(default_factory=Figures)

    def add(self, more: Progress) -> None:
        self.inputs += more.inputs
        self.seconds += more.seconds
        self.outcomes.update(more.outcomes)
        mine, theirs = self.figures, more.figures
        self.figures = Figures(max(mine.longest_turn, theirs.longest_turn), max(mine.memory, theirs.memory))


class Place(Protocol):
    """The number of the present input, in memory shared with the parent."""

    value: int


def input_of(target: Target, seed: int, index: int, name: str) -> bytes:
    return target.make(Random(f"{seed}:{name}:{index}"))


def work(order: Order, place: Place, pipe: Connection, folder: str) -> None:
    """Carries out the order. Sends Found, and Progress now and then and at the end. ``folder``: for temporary files."""
    tempfile.tempdir = folder
    progress, told = Progress(), 0.0
    with made(order.target) as target:
        begun = time.monotonic()
        index = order.first
        while not order.is_over(index, time.monotonic() - begun):
            size = target.batch if order.count is None else min(target.batch, order.first + order.count - index)
            place.value = index
            inputs = [input_of(target, order.seed, index + number, order.target) for number in range(size)]
            try:
                progress.outcomes.update(target.check(inputs))
            except Violation as violation:
                progress.outcomes["FAILED"] += 1
                pipe.send(_found(target, inputs, index, violation))
            index += size
            progress.inputs += size
            if time.monotonic() - told > _TELL:
                told = time.monotonic()
                progress.seconds, progress.figures = told - begun, target.figures()
                pipe.send(progress)
        progress.seconds, progress.figures = time.monotonic() - begun, target.figures()
    pipe.send(progress)


def _found(target: Target, inputs: Sequence[bytes], first: int, violation: Violation) -> Found:
    """Returns the failing input of a batch, if it also fails alone."""
    place = violation.place
    if place is None:
        place = next((number for number, data in enumerate(inputs) if len(inputs) > 1 and _fails(target, data)), None)
    if place is None:
        return Found(first, f"{violation} (one of {len(inputs)} inputs, none of which fails alone)", inputs[0])
    data = inputs[place]
    if not target.over_sockets:
        data = reduced(data, lambda smaller: _fails(target, smaller) == _kind(str(violation)), _SHRINK_TRIES)
    return Found(first + place, str(violation), data)


def _fails(target: Target, data: bytes) -> str | None:
    """Returns the kind of failure, if there is one."""
    try:
        target.check([data])
    except Violation as violation:
        return _kind(str(violation))
    return None


def _kind(words: str) -> str:
    return words.partition(":")[0]
