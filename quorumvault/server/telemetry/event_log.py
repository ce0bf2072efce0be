"""The event log: who asked for what, when, and how it ended. One JSON object a line, in a file per node (eventfile.py).

A line is with the operating system before its request is answered; it is not synced, so a power cut may lose the last ones,
a crash of the process none. Lines of requests that run at once are written together, on a thread of their own: the event loop
never waits for a disk (trap 20).

A log that cannot be written does not stop the node. Lines wait in a bounded queue and are written when the disk takes them
again; those that did not fit are counted, and a ``log_gap`` event says how many they were. Meanwhile ``problem`` has words
for /health. What becomes of requests meanwhile is ``events.on_failure``: they go on, or the log ``refuses`` new ones, and those
whose line it could not write are not answered with what they asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from quorumvault.config.cluster import EventLogSettings
from quorumvault.server.telemetry.event_file import EventFile

logger = logging.getLogger("quorumvault.events")

#: In a node's data directory.
FILE_NAME = "events.jsonl"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. What does not apply is left out. Never a value, an API key or a whole token, in ``detail`` neither.

    ``ts`` (RFC 3339, UTC, microseconds) and ``node`` are set by the log. ``items``, ``found``, ``not_found`` and ``replaced``
    are counts of values; ``outcome`` is "ok" or the error's code; ``duration_ms`` is from the request's head to its answer.
    ``more``: how many requests besides this one the line stands for (refusals.py).
    """

    ts: str = ""
    node: str = ""
    event: str
    request_id: str | None = None
    owner: str | None = None
    key_id: str | None = None
    purpose: str | None = None
    epoch: int | None = None
    items: int | None = None
    found: int | None = None
    not_found: int | None = None
    replaced: int | None = None
    outcome: str | None = None
    duration_ms: float | None = None
    peer: str | None = None
    detail: str | None = None
    more: int | None = None


class EventSink(Protocol):
    """Where the line about a request goes. Never raises: a log that cannot be written shows in /health.

    ``refuses``: why no request is to be served, since its line could not be written; None if requests are served. ``write``
    returns whether the request may be answered: by default all may, see events.on_failure.
    """

    @property
    def refuses(self) -> str | None: ...

    async def write(self, event: Event) -> bool: ...


class EventLog:
    """Used on the event loop's thread; the file belongs to a thread of its own.

    ``now`` gives seconds since the epoch; ``has_room`` whether the disk has room for old files (eventfile.py).
    Lines gather in ``_lines`` while the writer has a group ``_in_hand``; when that has ended, the next group begins.
    """

    def __init__(
        self, path: Path, node: str, settings: EventLogSettings, now: Callable[[], float], has_room: Callable[[], bool]
    ) -> None:
        self._node = node
        self._settings = settings
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque()
        self._in_hand: deque[bytes] | None = None
        #: Set once the lines that gather now have been tried; and the same for those in hand.
        self._tried = asyncio.Event()
        self._tried_in_hand = asyncio.Event()
        self._lost = 0
        self._trouble: str | None = None
        #: Until the group in hand is late, or until a failed one is tried again.
        self._timer: asyncio.TimerHandle
        self._closing = False
        self._closed = asyncio.Event()
        self._groups: queue.SimpleQueue[deque[bytes] | None] = queue.SimpleQueue()
        file = EventFile(path, settings, now, has_room)
        self._thread = threading.Thread(target=self._write_groups, args=(file,), name="event log", daemon=True)

    def start(self) -> None:
        """Begin to write. The first thing it does is to open the file and drop a torn last line."""
        self._thread.start()
        self._begin()

    async def close(self) -> None:
        """Write what waits, as far as the disk takes it within ``patience`` seconds."""
        self._closing = True
        if self._in_hand is None:
            self._timer.cancel()
            self._begin()
        try:
            async with asyncio.timeout(self._settings.patience):
                await self._closed.wait()
        except TimeoutError:
            logger.error("event log: left behind, its disk does not answer")
        else:
            self._groups.put(None)
            self._thread.join()
        if self._waiting or self._lost:
            logger.error("event log: %d events could not be written", self._waiting + self._lost)

    @property
    def problem(self) -> str | None:
        """What keeps events from being written now, in words without secrets; None if nothing does."""
        if self._trouble is None and not self._lost:
            return None
        return f"event log: {self._trouble or 'its queue was full'}; events waiting: {self._waiting}, lost: {self._lost}"

    @property
    def refuses(self) -> str | None:
        """Why no request is to be served now, in words without secrets; None if they are."""
        return None if self._settings.on_failure == "continue" else self.problem

    def note(self, event: Event) -> None:
        """Hand over an event that no answer depends on. Never waits."""
        if self._waiting >= self._settings.queue:
            self._lost += 1
            return
        self._queue(event)
        if self._in_hand is None and self._trouble is None:
            self._begin()

    async def write(self, event: Event) -> bool:
        """Return when the event's line is with the operating system; at once while the log is in trouble.

        A disk that hangs holds up each request that is under way for ``patience`` seconds, and none that comes after. Returns
        whether the request may be answered: not if its line may be missing and events.on_failure is refuse.
        """
        tried = self._tried
        self.note(event)
        if self._trouble is None:
            await tried.wait()
        return self.refuses is None

    @property
    def _waiting(self) -> int:
        return len(self._lines) + (0 if self._in_hand is None else len(self._in_hand))

    def _queue(self, event: Event) -> None:
        stamp = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._lines.append(self._encode(msgspec.structs.replace(event, ts=stamp, node=self._node)) + b"\n")

    def _begin(self) -> None:
        """Give the lines that wait, which may be none, to the writer, which is idle."""
        self._in_hand, self._lines = self._lines, deque()
        self._tried_in_hand, self._tried = self._tried, asyncio.Event()
        self._timer = self._loop.call_later(self._settings.patience, self._on_late)
        self._groups.put(self._in_hand)

    def _write_groups(self, file: EventFile) -> None:
        """The writer. What it could not write is still in the group when that has ended."""
        for group in iter(self._groups.get, None):
            error = None
            try:
                file.append(group)
            except OSError as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who would want to know
                self._loop.call_soon_threadsafe(self._ended, group, error)
        file.close()

    def _ended(self, group: deque[bytes], error: OSError | None) -> None:
        group.extend(self._lines)
        self._lines, self._in_hand = group, None
        self._timer.cancel()
        if error is None:
            self._end_trouble()
        else:
            self._begin_trouble(f"cannot be written: {error.strerror}")
        self._tried_in_hand.set()
        if self._lines and error is None:
            self._begin()
        elif self._closing:
            self._closed.set()
        elif error is not None:
            self._timer = self._loop.call_later(self._settings.retry, self._begin)

    def _on_late(self) -> None:
        """The disk does not answer: let everybody go who waits for it."""
        self._begin_trouble(f"its disk takes longer than {self._settings.patience:g} s")
        self._tried_in_hand.set()
        self._tried.set()
        self._tried = asyncio.Event()

    def _begin_trouble(self, what: str) -> None:
        if self._trouble is None:
            logger.error("event log: %s", what)
        self._trouble = what

    def _end_trouble(self) -> None:
        if self._trouble is not None:
            logger.info("event log: written again")
        self._trouble = None
        if self._lost:
            self._queue(Event(event="log_gap", detail=f"{self._lost} events were lost"))
            self._lost = 0
