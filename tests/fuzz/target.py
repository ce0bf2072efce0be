"""What a target is. An input is bytes, whatever it means to its target, so that it can be written to a file and sent again."""

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

#: Seconds of one thread's own time that one input may take. Far above what any should, so that a slow machine passes.
LONGEST_TURN = 1.0


class Violation(Exception):
    """An invariant that did not hold; the words say which. ``place``: of the input among those that were given, if known."""

    def __init__(self, words: str, place: int | None = None) -> None:
        super().__init__(words)
        self.place = place


class Figures(NamedTuple):
    """Seconds of the longest turn, of the process that is fuzzed; its resident memory, at its most, in bytes."""

    longest_turn: float = 0.0
    memory: int = 0


class Target(ABC):
    """A context manager: whatever it needs is there within. ``make`` works outside too."""

    #: Inputs that are given to ``check`` at once.
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
        """Get ready; what goes on the stack is closed at the end."""

    @abstractmethod
    def make(self, rng: Random) -> bytes:
        """An input: the same for the same state of ``rng``."""

    @abstractmethod
    def check(self, inputs: Sequence[bytes]) -> list[str]:
        """What each led to, in a word or two. Raises Violation."""

    @abstractmethod
    def figures(self) -> Figures: ...


class InProcess(Target):
    """A target in this process: what it raises besides Violation is one."""

    def __init__(self) -> None:
        self._longest = 0.0

    @abstractmethod
    def check_one(self, data: bytes) -> str:
        """What this led to."""

    def check(self, inputs: Sequence[bytes]) -> list[str]:
        return [self._timed(place, data) for place, data in enumerate(inputs)]

    def _timed(self, place: int, data: bytes) -> str:
        begun = time.thread_time()
        try:
            outcome = self.check_one(data)
        except Violation as violation:
            raise Violation(str(violation), place) from None
        except Exception as error:
            # Its words may quote the input; where it was raised says more.
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
