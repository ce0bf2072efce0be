"""Refusals: logs why connections failed, once for each host and reason, at a bounded rate.

Anyone who reaches the peer port can cause any number of refusals, and a line for each would fill the disk.
"""

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("quorumvault.peers")

#: Most hosts whose last reason is remembered, so that a host that tries again and again is logged once.
_REMEMBERED: Final = 256
#: Most lines in so many seconds; further refusals are counted in the next line.
_LINES: Final = 30
_SECONDS: Final = 60.0


class Refusals:
    """``now`` is a monotonic clock; ``tell(words)`` receives each line in addition to the log."""

    def __init__(self, now: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._now = now
        self._tell = tell
        self._last: dict[str, str] = {}
        self._since = now()
        self._lines = 0
        self._left_out = 0

    def add(self, remote: str, reason: str) -> None:
        """Note that a connection from this host failed."""
        if self._last.get(remote) == reason:
            return
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[remote] = reason
        if self._now() - self._since >= _SECONDS:
            self._since, self._lines = self._now(), 0
        if self._lines >= _LINES:
            self._left_out += 1
            return
        self._lines += 1
        others = f" ({self._left_out} others are left out before this one)" if self._left_out else ""
        self._left_out = 0
        words = f"a connection from {remote} came to nothing: {reason}{others}"
        logger.warning("%s", words)
        self._tell(words)

    def forget(self, remote: str) -> None:
        """A connection from this host succeeded: log the same reason again if it recurs."""
        self._last.pop(remote, None)
