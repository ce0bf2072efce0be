"""The event log: who asked for what, when, and how it ended. One JSON object a line, in a file per node (event_file.py).

A request is answered only after the operating system has its line. The line is not synced: a power cut may lose the last lines,
but a crash of the process loses none. A separate thread writes the lines of concurrent requests together, because the event loop
must never wait for a disk.

A log that cannot be written does not stop the node. Lines wait in a bounded queue until the disk accepts them again. Lines that
did not fit are counted, and a ``log_gap`` event gives their number. Meanwhile /health shows ``problem``. ``events.on_failure``
decides about requests. With "continue" they are served. With "refuse", new requests are refused, and a request whose line could
not be written gets no result.
"""

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
    """One line. Fields that do not apply are left out. No field, ``detail`` included, has a value, an API key or a whole token.

    ``ts`` (RFC 3339, UTC, microseconds) and ``node`` are set by the log. ``items``, ``found``, ``not_found`` and ``replaced``
    are counts of values; ``outcome`` is "ok" or the error's code; ``duration_ms`` is from the request's head to its answer.
    ``more``: how many requests besides this one the line stands for (request_recorder.py).
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
    """Records each finished request by one call of ``write``. Never raises: a log that cannot be written shows in /health.

    ``refuses`` says why no request may be served, since its line could not be written; None if requests are served. ``write``
    returns whether the request may be answered, which depends on events.on_failure.
    """

    @property
    def refuses(self) -> str | None: ...

    async def write(self, event: Event) -> bool: ...


class EventLog:
    """Gathers lines in ``_lines`` while the writer has a group ``_in_hand``; when that group has ended, the next one begins.

    While the writer is idle, a group begins with the end of the loop's turn: requests that end in one turn share the hand-over to
    the writer, which costs more than the write. A line that went alone would let the others of its turn wait for a second group.

    Used on the event loop's thread; the file belongs to the writer's thread. ``now`` returns seconds since 1970; ``has_room``
    returns whether the disk has room for old files (event_file.py).

    Invariants:
    - The writer has at most one group, and ``_in_hand`` is that group, or None while the writer is idle.
    - Each event is in ``_lines``, in ``_in_hand``, written, or counted in ``_lost``; lines are written in the order of events.
    - At most ``settings.queue`` lines wait, and one more: the log_gap that tells of lost events.
    - ``_tried`` belongs to the lines in ``_lines``, ``_tried_in_hand`` to those in hand: each is set when its lines were tried,
      or when the disk is late, so nobody waits for longer than ``settings.patience``.
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
        self._tried = asyncio.Event()
        self._tried_in_hand = asyncio.Event()
        self._lost = 0
        #: How often the log became unwritable or late; and the number of events lost in all.
        self.troubles = self.lost = 0
        self._trouble: str | None = None
        #: Ends when the group in hand is late, or when a failed group is to be tried again.
        self._timer: asyncio.TimerHandle
        self._closing = False
        self._closed = asyncio.Event()
        self._groups: queue.SimpleQueue[deque[bytes] | None] = queue.SimpleQueue()
        file = EventFile(path, settings, now, has_room)
        self._thread = threading.Thread(target=self._write_groups, args=(file,), name="event log", daemon=True)

    def start(self) -> None:
        """Begin to write. The writer opens the file first, and drops a torn last line."""
        self._thread.start()
        self._begin()

    async def close(self) -> None:
        """Write the lines that wait, as far as the disk takes them within ``patience`` seconds."""
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
        """Says without secrets why events cannot be written now; None if they can."""
        if self._trouble is None and not self._lost:
            return None
        return f"event log: {self._trouble or 'its queue was full'}; events waiting: {self._waiting}, lost: {self._lost}"

    @property
    def refuses(self) -> str | None:
        """Says without secrets why no request may be served now; None if requests are served."""
        return None if self._settings.on_failure == "continue" else self.problem

    def note(self, event: Event) -> None:
        """Hand over an event that no answer depends on. Never waits."""
        if self._waiting >= self._settings.queue:
            self._lost += 1
            self.lost += 1
            return
        if not self._lines and self._in_hand is None:
            self._loop.call_soon(self._begin_if_idle)
        self._queue(event)

    async def write(self, event: Event) -> bool:
        """Write an event's line. Returns whether its request may be answered: not if the line may be missing and
        events.on_failure is "refuse".

        Returns once the line is with the operating system, and at once while the log is in trouble. A disk that hangs delays the
        requests under way by ``patience`` seconds, and no later ones.
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
        assert self._waiting <= self._settings.queue
        stamp = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        self._lines.append(self._encode(msgspec.structs.replace(event, ts=stamp, node=self._node)) + b"\n")

    def _begin_if_idle(self) -> None:
        if self._in_hand is None and self._trouble is None:
            self._begin()

    def _begin(self) -> None:
        """Give all lines that wait to the writer, which is idle. There may be none: then the writer opens the file alone."""
        assert self._in_hand is None
        self._in_hand, self._lines = self._lines, deque()
        self._tried_in_hand, self._tried = self._tried, asyncio.Event()
        self._timer = self._loop.call_later(self._settings.patience, self._on_late)
        self._groups.put(self._in_hand)

    def _write_groups(self, file: EventFile) -> None:
        """The writer's thread. Lines that could not be written are still in their group when it has ended."""
        for group in iter(self._groups.get, None):
            error = None
            try:
                file.append(group)
            except OSError as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is gone, and no one waits for the outcome
                self._loop.call_soon_threadsafe(self._ended, group, error)
        file.close()

    def _ended(self, group: deque[bytes], error: OSError | None) -> None:
        assert group is self._in_hand
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
        """The disk does not answer: release all requests that wait for it."""
        self._begin_trouble(f"its disk takes longer than {self._settings.patience:g} s")
        self._tried_in_hand.set()
        self._tried.set()
        self._tried = asyncio.Event()

    def _begin_trouble(self, what: str) -> None:
        if self._trouble is None:
            self.troubles += 1
            logger.error("event log: %s", what)
        self._trouble = what

    def _end_trouble(self) -> None:
        if self._trouble is not None:
            logger.info("event log: written again")
        self._trouble = None
        if self._lost:
            self._queue(Event(event="log_gap", detail=f"{self._lost} events were lost"))
            self._lost = 0
