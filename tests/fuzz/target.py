"""The interface of a target. An input is bytes, whatever it means to its target, so that it can be saved and sent again."""

import resource
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

#: The most CPU seconds of one thread for one input. Far more than any should take, so that a slow machine passes.
LONGEST_TURN = 1.0


class Violation(Exception):
    """An invariant that did not hold; the words name it. ``place``: the index of the input in its batch, if known."""

    def __init__(self, words: str, place: int | None = None) -> None:
        super().__init__(words)
        self.place = place


class Figures(NamedTuple):
    """The seconds of the longest turn of the fuzzed process, and its peak resident memory in bytes."""

    longest_turn: float = 0.0
    memory: int = 0


class Target(ABC):
    """A context manager that provides whatever the target needs. ``make`` works outside it too."""

    #: The number of inputs given to ``check`` at once.
    batch: ClassVar[int] = 1
    #: Whether its inputs go over a socket to a node.
    over_sockets: ClassVar[bool] = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def open(self, stack: ExitStack) -> None:  # noqa: B027 - most need nothing
        """Gets ready; closes what is on the stack at the end."""

    @abstractmethod
    def make(self, rng: Random) -> bytes:
        """Makes an input: the same for the same state of ``rng``."""

    @abstractmethod
    def check(self, inputs: Sequence[bytes]) -> list[str]:
        """Returns the outcome of each input, in a word or two. Raises Violation."""

    @abstractmethod
    def figures(self) -> Figures: ...


class InProcess(Target):
    """A target in this process: every exception except Violation becomes a Violation."""

    def __init__(self) -> None:
        self._longest = 0.0

    @abstractmethod
    def check_one(self, data: bytes) -> str:
        """Returns the outcome of this input."""

    def check(self, inputs: Sequence[bytes]) -> list[str]:
        return [self._timed(place, data) for place, data in enumerate(inputs)]

    def _timed(self, place: int, data: bytes) -> str:
        begun = time.thread_time()
        try:
            outcome = self.check_one(data)
        except Violation as violation:
            raise Violation(str(violation), place) from None
        except Exception as error:
            # The error's words may quote the input; the place that raised it says more.
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}, in {last.name}"
            raise Violation(f"{type(error).__name__} at {where}: {str(error)[:200]!r}", place) from None
        taken = time.thread_time() - begun
        self._longest = max(self._longest, taken)
        if taken > LONGEST_TURN:
            raise Violation(f"one input took {taken:.1f} s", place)
        return outcome

    def figures(self) -> Figures:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Figures(self._longest, most if sys.platform == "darwin" else most * 1024)
