"""Records the history as it happens: each record goes to a file at once, so that a run that breaks off leaves its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from chaos.testbed.history import Action, Complete, Invoke, Note, Outcome, Record

#: The number of decimal digits of times in seconds.
_DIGITS = 4


class Recorder:
    """Numbers operations and writes records, in the order of the calls. One thread only."""

    def __init__(self, file: BinaryIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode
        self._clock = clock
        self._zero = clock()
        self._ops = 0

    @classmethod
    @contextmanager
    def to(cls, path: Path, clock: Callable[[], float] = time.monotonic) -> Iterator[Recorder]:
        with path.open("wb") as file:
            yield cls(file, clock)

    @property
    def now(self) -> float:
        """Returns the seconds since the run began."""
        return round(self._clock() - self._zero, _DIGITS)

    def at(self, monotonic: float) -> float:
        """Converts a time of the system's monotonic clock, which all processes share, to seconds since the run began."""
        return round(monotonic - self._zero, _DIGITS)

    def invoke(
        self, action: Action, owner: str, node: str, given: tuple[str, ...], epoch: int, *, client: int, final: bool = False
    ) -> int:
        """Records the start of an operation, before its request is sent. Returns the operation's number."""
        op = self._ops
        self._ops += 1
        self.write(Invoke(op, action, owner, node, given, epoch, self.now, final, client))
        return op

    def complete(self, op: int, outcome: Outcome, answers: tuple[str | None, ...] = (), epoch: int = 0, why: str = "") -> None:
        """Records the end of an operation, after its answer has come."""
        self.write(Complete(op, outcome, answers, epoch, self.now, why))

    def note(self, words: str) -> None:
        self.write(Note(self.now, words))

    def write(self, record: Record) -> None:
        self._file.write(self._encode(record) + b"\n")
