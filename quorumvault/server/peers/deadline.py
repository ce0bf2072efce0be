"""The one timer of a connection: first for each step of its opening, then for the other side's silence."""

import asyncio
from collections.abc import Callable
from functools import partial

#: Seconds by which a timer may fire late without a sign that this process was held up.
_LATE = 0.2


class Deadline:
    """At most one deadline at a time; setting one replaces the previous one. All times in seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer expires, which not every loop's handles can tell.
        self._due = 0.0
        self._heard = 0.0

    def set(self, seconds: float, on_expiry: Callable[[], None]) -> None:
        self.cancel()
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, on_expiry)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heard(self) -> None:
        """Note that the other side has sent something."""
        self._heard = self._loop.time()

    def set_for_silence(self, seconds: float, on_silence: Callable[[], None]) -> None:
        """Call ``on_silence`` once nothing has been heard for ``seconds``."""
        self.set(seconds, partial(self._check, seconds, on_silence))

    def _check(self, seconds: float, on_silence: Callable[[], None]) -> None:
        now = self._loop.time()
        left = self._heard + seconds - now
        if left <= 0 and now - self._due <= _LATE:
            on_silence()
        else:
            # If this loop itself was held up, bytes that came meanwhile are read in its next turn.
            self.set(left if left > 0 else _LATE, partial(self._check, seconds, on_silence))
