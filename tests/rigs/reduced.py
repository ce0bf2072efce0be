"""Delta debugging (Zeller and Hildebrandt 2002): shrinks a failing input by leaving out ever smaller parts of it."""

from collections.abc import Callable
from typing import Any, TypeVar

WholeT = TypeVar("WholeT", bytes, tuple[Any, ...])


def reduced(whole: WholeT, fails: Callable[[WholeT], bool], tries: int) -> WholeT:
    """Returns the smallest failing input found within this many tries. Leaves out halves first."""
    size = max(1, len(whole) // 2)
    while size and tries:
        start = 0
        while start < len(whole) and tries:
            smaller = whole[:start] + whole[start + size :]
            tries -= 1
            if fails(smaller):
                whole = smaller
            else:
                start += size
        size //= 2
    return whole
