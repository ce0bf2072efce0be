"""Group commit: the thread that owns the store combines all waiting requests into one synced write.

The event loop never waits for a disk. While one group is being synced, the next one gathers. So the busier a node is, the more
requests share a sync, and a single request waits for no other.

The reads of a group come first, in parts that are answered one by one: a read waits neither for the sync nor for all other reads.
Requests that were answered together would stay together, and their clients would send the next ones together too. Reads may come
before writes that were sent earlier, because none of a group's requests has been answered yet.

Rules kept here: durable before acknowledged; a distrusted store stops.
"""

import logging
import queue
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from quorumvault.config.limits import Limits
from quorumvault.protocol.messages import AnyRequest, Get, GetSettled, Put, ReadEpoch, WriteBack
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.replica.replica import OwnWork, Replica

logger = logging.getLogger("quorumvault.storage")

#: The bytes that a read of one record counts as, in a group and in the queue: thousands of reads take as long as a write of
#: megabytes.
_READ_BYTES = 1024

#: Keys that one part of a group looks up, some half a millisecond's work: parts of a few keys cost a turn of the event loop each.
_PART_KEYS: Final = 64


class _Entry(NamedTuple):
    """``size`` is in bytes: the bytes that the request writes, or that its reads count as."""

    request: AnyRequest | OwnWork
    on_reply: OnReply
    size: int


@dataclass(eq=False)
class GroupCommit:
    """Runs a replica on its own thread. ``on_failure`` is called there, and must end the process.

    Invariants: a request is answered once: when ``Replica.handle``, which makes its part of a group durable, has returned; or at
    once with NoReply; or, if storage fails, never. ``_held_bytes`` is the size of the waiting requests and the current group; it
    is never negative, and at most ``limits.storage_queue_bytes``.
    """

    replica: Replica
    loop: AbstractEventLoop
    limits: Limits
    on_failure: Callable[[BaseException], None]

    def __post_init__(self) -> None:
        self._began: float | None = None
        #: On the event loop's thread only.
        self._held_bytes = 0
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    def submit(self, request: AnyRequest | OwnWork, on_reply: OnReply) -> None:
        """Called on the event loop's thread. ``on_reply`` is called there too: later, or at once if too much waits already."""
        size = _size(request)
        limits = self.limits
        if self._entries.qsize() >= limits.storage_queue or self._held_bytes + size > limits.storage_queue_bytes:
            on_reply(NoReply(sent=False))
            return
        self._held_bytes += size
        assert 0 <= self._held_bytes <= limits.storage_queue_bytes
        self._entries.put(_Entry(request, on_reply, size))

    def close(self, seconds: float | None = None) -> bool:
        """Handle the queue, then end the thread. False if that takes longer than ``seconds``. Blocks: not for the event loop."""
        self._entries.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stalled(self, seconds: float) -> bool:
        """True if the disk has been working on the current group for longer than this."""
        began = self._began
        return began is not None and time.monotonic() - began > seconds

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._began = time.monotonic()
                for part in parts_of(group):
                    replies = self.replica.handle([entry.request for entry in part])
                    self.loop.call_soon_threadsafe(self._deliver, part, replies)
                self._began = None
        except BaseException as failure:  # any failure: the state of the store is no longer known
            logger.critical("storage failed: %s: %s", type(failure).__name__, failure)
            self.on_failure(failure)

    def _next_group(self) -> list[_Entry]:
        """Wait for a first request, then add the waiting ones, up to ``limits.group_bytes``. Returns [] when the queue ends."""
        entry = self._entries.get()
        group: list[_Entry] = []
        room = self.limits.group_bytes
        while entry is not None:
            group.append(entry)
            room -= entry.size
            if room <= 0:
                break
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                break
        else:
            if group:
                self._entries.put(None)
        return group

    def _deliver(self, group: list[_Entry], replies: list[Any]) -> None:
        for entry, reply in zip(group, replies, strict=True):
            self._held_bytes -= entry.size
            assert self._held_bytes >= 0
            try:
                entry.on_reply(reply)
            except Exception as error:  # one requester failed; the others of the group get their replies
                logger.error("a reply could not be delivered: %s", type(error).__name__)


def parts_of(group: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """The group's reads, in parts of about ``_PART_KEYS`` keys, then its other requests."""
    others: list[_Entry] = []
    reads: list[_Entry] = []
    keys = 0
    for entry in group:
        if isinstance(entry.request, Get | GetSettled | ReadEpoch):
            reads.append(entry)
            keys += 1 if isinstance(entry.request, ReadEpoch) else len(entry.request.digests)
        else:
            others.append(entry)
        if keys >= _PART_KEYS:
            yield reads
            reads, keys = [], 0
    if reads:
        yield reads
    if others:
        yield others


def _size(request: AnyRequest | OwnWork) -> int:
    match request:
        case Put(sealed=sealed):
            return sum(map(len, sealed))
        case WriteBack(records=records):
            return sum(map(len, records))
        case Get(digests=digests) | GetSettled(digests=digests):
            return _READ_BYTES * len(digests)
        case _:
            return 0
