"""A hybrid logical clock (Kulkarni et al. 2014): close to wall time, and never behind a reading that it has observed.

A reading has 48 bits of milliseconds since 1970 and 16 bits of counter. Readings order the first writers of records. No decision
depends on them, so a wall clock that jumps does no harm.
"""

_COUNTER_BITS = 16
#: Readings more than a day ahead of the local wall clock are ignored: one broken clock must not drag all others along.
_FOLLOWED_MS = 24 * 3600 * 1000


def wall_ms_of(reading: int) -> int:
    """The milliseconds since 1970 in a reading."""
    return reading >> _COUNTER_BITS


class HybridClock:
    def __init__(self) -> None:
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """Return a reading larger than every earlier reading and every observed one."""
        self._last = max(self._last + 1, wall_ms << _COUNTER_BITS)
        return self._last

    def observe(self, reading: int, wall_ms: int) -> None:
        """Take note of another node's reading."""
        if reading <= (wall_ms + _FOLLOWED_MS) << _COUNTER_BITS:
            self._last = max(self._last, reading)
