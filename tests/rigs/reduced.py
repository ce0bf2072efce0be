"""Delta debugging (Zeller and Hildebrandt 2002): what fails, made smaller by leaving out ever smaller parts of it."""

from collections.abc import Callable
from typing import Any, TypeVar

WholeT = TypeVar("WholeT", bytes, tuple[Any, ...])


def reduced(whole: WholeT, fails: Callable[[WholeT], bool], tries: int) -> WholeT:
    """The smallest of those that were found to fail within so many tries. Halves are left out first."""
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
