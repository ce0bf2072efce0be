"""Requests that came to nothing, in the event log: lines for the first of them in a second, and one for all the others.

    refused                 by what is wrong with them or for want of room: nothing was done and nothing told, and whoever has a
                            key, or none, can make thousands a second. The first of a kind has its line at once
    asking for no value     the epoch, the configured fields, an empty batch: nothing was told that matters, and they cost next to
                            nothing, so that they too could fill the log. Ordinary use has a line each; a flood has not
    all else                a line each: values were told or stored, or it cannot be said whether they were

Otherwise the files that tell who read which values could be pushed out by lines that tell nothing. A kind is an operation, an
outcome and a key. Those of a kind that have no line of their own share the next one, with the request id of the last, and with
how many more it stands for. All of them are counted one by one in the metrics.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from msgspec.structs import replace

from quorumvault import errors
from quorumvault.server.telemetry.event_log import Event

#: Between two shared lines of a kind.
SECONDS: Final = 1.0
#: Lines of their own that requests of a kind get in a second.
_OF_REFUSED: Final = 1
_OF_NOTHING: Final = 16
_REFUSALS = (
    errors.Malformed,
    errors.Unauthenticated,
    errors.NotPermitted,
    errors.EpochAhead,
    errors.TooLarge,
    errors.UnsupportedMediaType,
    errors.Invalid,
    errors.NotTokenizable,
    errors.AlreadyTokenized,
    errors.TooManyItems,
    errors.ValueTooLarge,
    errors.Busy,
    errors.RateLimited,
    errors.Draining,
)
#: Outcomes of requests of which nothing was done. "disconnected": the caller left before its body was there.
REFUSED: Final = frozenset({"disconnected", *(kind.code for kind in _REFUSALS)})
_WITHOUT_VALUES = frozenset({"epoch", "fields"})

#: Operation, outcome, and id of the key if there was one: no more of them than keys in force times what they may meet.
_Kind = tuple[str, str | None, str | None]


class Log(Protocol):
    """Of the event log: see there."""

    @property
    def refuses(self) -> str | None: ...

    async def write(self, event: Event) -> bool: ...

    def note(self, event: Event) -> None: ...


class _Pending:
    """Of one kind, in this second: lines that are left, the last request that got none, and how many got none before it."""

    def __init__(self, timer: asyncio.TimerHandle, left: int) -> None:
        self.timer = timer
        self.left = left
        self.last: Event | None = None
        self.more = 0


class RefusalsTogether:
    """Implements EventSink over the event log. Used on the event loop's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        #: Kinds that had a line within the last second.
        self._pending: dict[_Kind, _Pending] = {}

    @property
    def refuses(self) -> str | None:
        return self._log.refuses

    async def write(self, event: Event) -> bool:
        """Return when the event's line is written, if it is to have one now: whether the request may be answered."""
        lines = _own_lines(event)
        if lines is None:
            return await self._log.write(event)
        kind = event.event, event.outcome, event.key_id
        pending = self._pending.get(kind) or self._begin_second(kind, lines)
        if pending.left:
            pending.left -= 1
            return await self._log.write(event)
        pending.more += pending.last is not None
        pending.last = event
        return True

    def flush(self) -> None:
        """Write a line for those that have none."""
        for pending in self._pending.values():
            pending.timer.cancel()
            self._tell(pending)
        self._pending.clear()

    def _begin_second(self, kind: _Kind, lines: int) -> _Pending:
        pending = self._pending[kind] = _Pending(self._loop.call_later(SECONDS, self._end_second, kind), lines)
        return pending

    def _end_second(self, kind: _Kind) -> None:
        pending = self._pending.pop(kind)
        if pending.last is not None:
            self._tell(pending)
            # The shared line is one of those of the second that begins.
            self._begin_second(kind, (_own_lines(pending.last) or 1) - 1)

    def _tell(self, pending: _Pending) -> None:
        if pending.last is not None:
            self._log.note(replace(pending.last, more=pending.more or None))


def _own_lines(event: Event) -> int | None:
    """How many of its kind have a line of their own in a second; None: all."""
    if event.outcome in REFUSED:
        return _OF_REFUSED
    if event.outcome == "ok" and (event.event in _WITHOUT_VALUES or event.items == 0):
        return _OF_NOTHING
    return None
