"""Counts connections that a node refused or ended, and bytes on them that were not a request; logs at most one line a second.

Anyone who reaches the port can cause any number of refusals, and a line for each would fill the disk.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final

_log = logging.getLogger("quorumvault.http")

#: Seconds between two lines of the log.
SECONDS: Final = 1.0


class Refusal(StrEnum):
    """The reason. The values are those of ``quorumvault_rejected_total{reason}``."""

    #: Not HTTP/1.1, or one of its parts is too large: 400.
    MALFORMED = "http-malformed"
    #: The bytes are not TLS as this node accepts it, or the certificate was refused.
    NO_TLS = "http-no-tls"
    #: Its head or its body did not arrive in time.
    LATE = "http-late"
    #: Its answer was not read in time.
    UNREAD = "http-unread"
    #: Idle, and closed to make room for a new connection.
    CLOSED_FOR_ROOM = "connection-closed-for-room"
    #: No room: closed at once, or served only the health paths.
    NO_ROOM = "connection-no-room"


class HttpRefusals:
    """Used on the event loop's thread. ``count`` is called once for each refusal."""

    def __init__(self, count: Callable[[Refusal], None]) -> None:
        self._count = count
        self._unlogged: Counter[Refusal] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, refusal: Refusal) -> None:
        self._count(refusal)
        self._unlogged[refusal] += 1
        if self._timer is None:
            self._log_all()

    def _log_all(self) -> None:
        words = ", ".join(f"{count} {refusal}" for refusal, count in self._unlogged.items())
        _log.warning("HTTP connections refused or ended: %s", words)
        self._unlogged.clear()
        self._timer = asyncio.get_running_loop().call_later(SECONDS, self._end_second)

    def _end_second(self) -> None:
        self._timer = None
        if self._unlogged:
            self._log_all()
