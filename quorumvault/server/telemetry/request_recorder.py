"""Records each finished request, in one call: counts it in the metrics, and gives it a line in the event log.

Requests that disclosed nothing could push lines that say who read which values out of the log's files. So such requests share
lines:

    refused              nothing was done or disclosed, and anyone can send thousands a second. The first of a kind in a second
                         gets its line at once, and those after it share the next line
    asking for no value  the epoch, the configured fields, an empty batch. Up to 16 of a kind in a second get a line each, which
                         ordinary use never exceeds, and those after them share one
    all others           get a line each: values were disclosed or stored, or it is unknown whether they were

A kind is an operation, an outcome and a key. A shared line has the request id of the last request, and ``more``: how many others
it stands for. The metrics count every request separately.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from msgspec.structs import replace

from quorumvault import errors
from quorumvault.server.telemetry.event_log import Event, EventSink

#: Seconds between two shared lines of a kind.
SECONDS: Final = 1.0
#: Requests of a kind that have a line of their own in a second.
_OWN_OF_REFUSED: Final = 1
_OWN_OF_NO_VALUE: Final = 16
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


class Log(EventSink, Protocol):
    """The part of EventLog that is needed here."""

    def note(self, event: Event) -> None: ...


class _Pending:
    """One kind in this second: own lines left, the last request without a line, and how many had none before it."""

    def __init__(self, timer: asyncio.TimerHandle, left: int) -> None:
        self.timer = timer
        self.left = left
        self.last: Event | None = None
        self.more = 0


class RequestRecorder:
    """Implements EventSink over the event log. Used on the event loop's thread. ``count`` counts one event in the metrics."""

    def __init__(self, log: Log, count: Callable[[Event], None]) -> None:
        self._log = log
        self._count = count
        self._loop = asyncio.get_running_loop()
        #: Kinds that had a line within the last second.
        self._pending: dict[_Kind, _Pending] = {}

    @property
    def refuses(self) -> str | None:
        return self._log.refuses

    async def write(self, event: Event) -> bool:
        """Record a finished request. Returns whether it may be answered, once its line is written if it has one of its own.

        A success that may not be answered is counted as the NoQuorum that the caller gets.
        """
        may_be_answered = await self._write_line(event)
        withheld = event.outcome == "ok" and not may_be_answered
        self._count(replace(event, outcome=errors.NoQuorum.code) if withheld else event)
        return may_be_answered

    async def _write_line(self, event: Event) -> bool:
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
        """Write the shared lines that are due later, now. For the end of the process."""
        for pending in self._pending.values():
            pending.timer.cancel()
            self._write_shared(pending)
        self._pending.clear()

    def _begin_second(self, kind: _Kind, lines: int) -> _Pending:
        pending = self._pending[kind] = _Pending(self._loop.call_later(SECONDS, self._end_second, kind), lines)
        return pending

    def _end_second(self, kind: _Kind) -> None:
        pending = self._pending.pop(kind)
        if pending.last is not None:
            self._write_shared(pending)
            # The shared line is one of those of the second that begins.
            self._begin_second(kind, (_own_lines(pending.last) or 1) - 1)

    def _write_shared(self, pending: _Pending) -> None:
        if pending.last is not None:
            self._log.note(replace(pending.last, more=pending.more or None))


def _own_lines(event: Event) -> int | None:
    """How many requests of the event's kind have a line of their own in a second; None if all do."""
    if event.outcome in REFUSED:
        return _OWN_OF_REFUSED
    if event.outcome == "ok" and (event.event in _WITHOUT_VALUES or event.items == 0):
        return _OWN_OF_NO_VALUE
    return None
