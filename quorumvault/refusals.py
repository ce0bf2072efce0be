"""Requests that were turned away unread, in the event log: a line a second for each kind of them, with how many it stands for.

    unauthenticated   no valid API key: whoever reaches the port could fill the log, until its older files are rotated away, and
                      with them what is to be remembered of those who had a key
    busy              no place, by key: a line each takes a third of what a refusal costs, and under overload it is the refusals
                      that leave the less time for work the more there are

The first has its line at once; those of the second that follows share the next one, with the request id of the last. All of them
are counted one by one in the metrics.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from msgspec.structs import replace

from quorumvault.errors import Busy, Unauthenticated
from quorumvault.events import Event

#: Between two lines of a kind.
SECONDS: Final = 1.0
_TOGETHER = (Unauthenticated.code, Busy.code)

#: Outcome, and id of the key if there was one: no more of them than keys in force.
_Kind = tuple[str | None, str | None]


class Log(Protocol):
    """Of the event log: see there."""

    async def write(self, event: Event) -> None: ...

    def note(self, event: Event) -> None: ...


class _Pending:
    """Of one kind: the last one that has no line yet, and how many had none before it."""

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.last: Event | None = None
        self.more = 0


class RefusalsTogether:
    """Implements EventSink over the event log. Used on the event loop's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        #: Kinds that had a line within the last second.
        self._pending: dict[_Kind, _Pending] = {}

    async def write(self, event: Event) -> None:
        """Return when the event's line is written, if it is to have one now."""
        if event.outcome not in _TOGETHER:
            await self._log.write(event)
            return
        kind = event.outcome, event.key_id
        pending = self._pending.get(kind)
        if pending is None:
            self._pending[kind] = _Pending(self._loop.call_later(SECONDS, self._end_second, kind))
            await self._log.write(event)
        else:
            pending.more += pending.last is not None
            pending.last = event

    def flush(self) -> None:
        """Write a line for those that have none."""
        for pending in self._pending.values():
            pending.timer.cancel()
            self._tell(pending)
        self._pending.clear()

    def _end_second(self, kind: _Kind) -> None:
        pending = self._pending.pop(kind)
        if pending.last is not None:
            self._tell(pending)
            self._pending[kind] = _Pending(self._loop.call_later(SECONDS, self._end_second, kind))

    def _tell(self, pending: _Pending) -> None:
        if pending.last is not None:
            self._log.note(replace(pending.last, more=pending.more or None))
