"""A hybrid logical clock (Kulkarni et al. 2014): close to wall time, and never behind anything that was seen.

48 bits of milliseconds since 1970, 16 bits of counter. It orders first writers. No decision depends on it, so
a clock that jumps does no harm.
"""

_COUNTER_BITS = 16
#: A clock that is more than a day ahead of ours is not followed: one broken clock must not drag all others along.
_FOLLOWED_MS = 24 * 3600 * 1000


def wall_ms_of(reading: int) -> int:
    """The milliseconds since 1970 in a reading."""
    return reading >> _COUNTER_BITS


class HybridClock:
    def __init__(self) -> None:
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """A reading larger than every earlier one and every one that was observed."""
        self._last = max(self._last + 1, wall_ms << _COUNTER_BITS)
        return self._last

    def observe(self, reading: int, wall_ms: int) -> None:
        """Another node's reading was seen."""
        if reading <= (wall_ms + _FOLLOWED_MS) << _COUNTER_BITS:
            self._last = max(self._last, reading)
