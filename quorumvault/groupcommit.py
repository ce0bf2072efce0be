"""Group commit: the thread that owns the store, and takes all requests that wait into one synced write.

The event loop never waits for a disk (trap 20). While one group is being synced the next one gathers, so that the busier
a node is the more requests share a sync, and an idle one waits for nobody.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

from quorumvault.config import Limits
from quorumvault.peers.peer import Unreachable
from quorumvault.protocol.messages import AnyReply, AnyRequest, Put
from quorumvault.replica import Replica

logger = logging.getLogger("quorumvault.storage")

OnReply = Callable[[AnyReply | Unreachable], None]
_Entry = tuple[AnyRequest, OnReply]


class GroupCommit:
    """Runs a replica on its own thread. ``on_failure`` is called there, and has to end the process (rule 11)."""

    def __init__(
        self, replica: Replica, loop: AbstractEventLoop, limits: Limits, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._replica = replica
        self._loop = loop
        self._limits = limits
        self._on_failure = on_failure
        self._began: float | None = None
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    def submit(self, request: AnyRequest, on_reply: OnReply) -> None:
        """Called on the event loop's thread, where ``on_reply`` is called later."""
        if self._entries.qsize() >= self._limits.storage_queue:
            on_reply(Unreachable(sent=False))
            return
        self._entries.put((request, on_reply))

    def close(self, seconds: float | None = None) -> bool:
        """Handles what is queued, then ends the thread; False if that takes longer. Waits: not for the event loop's thread."""
        self._entries.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stalled(self, seconds: float) -> bool:
        """Whether the group at hand has been with the disk for longer than this."""
        began = self._began
        return began is not None and time.monotonic() - began > seconds

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._began = time.monotonic()
                replies = self._replica.handle([request for request, _ in group])
                self._began = None
                self._loop.call_soon_threadsafe(_deliver, group, replies)
        except BaseException as failure:  # whatever it is: the state of the store is no longer known
            logger.critical("storage failed: %s: %s", type(failure).__name__, failure)
            self._on_failure(failure)

    def _next_group(self) -> list[_Entry]:
        """Waits for a first request, then takes what is there already. Empty at the end."""
        entry = self._entries.get()
        group: list[_Entry] = []
        room = self._limits.group_bytes
        while entry is not None:
            group.append(entry)
            room -= _size(entry[0])
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


def _size(request: AnyRequest) -> int:
    return sum(map(len, request.sealed)) if isinstance(request, Put) else 0


def _deliver(group: list[_Entry], replies: list[AnyReply]) -> None:
    for (_, on_reply), reply in zip(group, replies, strict=True):
        try:
            on_reply(reply)
        except Exception as error:  # of one requester; the others of the group have a right to their replies
            logger.error("a reply could not be delivered: %s", type(error).__name__)
