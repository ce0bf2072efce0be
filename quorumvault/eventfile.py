"""The event log as files: events.jsonl, and behind it events.jsonl.1 (the newest) to events.jsonl.<keep>.

One process appends, so what is behind the last newline can only be a line that it did not finish: torn by a crash, a power
cut, or a disk that filled up. Such a tail is cut off before anything is appended, else the next line would be glued to it
and two events would be lost (trap 15). Whole lines are never touched.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path

from quorumvault.config import EventLogSettings

logger = logging.getLogger("quorumvault.events")

_BLOCK = 64 * 1024
#: Lines are written together up to this size, so that a long backlog is neither one huge write nor one call a line.
_CHUNK_BYTES = 1024 * 1024


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


class EventFile:
    """Appends lines and rotates. Blocking, and not thread-safe: one thread owns it. Any call may raise OSError."""

    def __init__(self, path: Path, settings: EventLogSettings) -> None:
        self._path = path
        self._settings = settings
        self._descriptor: int | None = None
        self._size = 0
        #: Whether a write has begun and not ended well: the file may have more than ``_size`` bytes.
        self._torn = False

    def append(self, lines: deque[bytes]) -> None:
        """Write the lines in order and take each off the left once it is written: after an OSError the rest is still there."""
        descriptor = self._open()
        while lines:
            chunk = self._next_chunk(lines)
            if self._size and self._size + len(chunk) > self._settings.file_bytes:
                self._rotate()
                descriptor = self._open()
            self._write(descriptor, chunk)
            for _ in range(chunk.count(b"\n")):
                lines.popleft()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _next_chunk(self, lines: deque[bytes]) -> bytes:
        """The first lines that still fit into the file, or one line if none does; the caller rotates for that one."""
        room = min(self._settings.file_bytes - self._size, _CHUNK_BYTES)
        chunk = bytearray()
        for line in lines:
            if chunk and len(chunk) + len(line) > room:
                break
            chunk += line
        return bytes(chunk)

    def _write(self, descriptor: int, data: bytes) -> None:
        if self._torn:
            os.ftruncate(descriptor, self._size)
        self._torn = True
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        self._torn = False
        self._size += len(data)

    def _open(self) -> int:
        """The open file. Opened anew if it was deleted: what is written to a file without a name is seen by nobody."""
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
            self.close()
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                self._size = _cut_torn_tail(descriptor, self._path)
            except OSError:
                os.close(descriptor)
                raise
            self._torn = False
            self._descriptor = descriptor
        return self._descriptor

    def _rotate(self) -> None:
        """Every kept file moves one number up as far as the first gap; without a gap the oldest is replaced.

        A gap is what a rotation leaves that failed on its way, so trying again loses nothing more.
        """
        keep = self._settings.keep
        free = next((number for number in range(1, keep) if not rotated(self._path, number).exists()), keep)
        for number in range(free, 1, -1):
            rotated(self._path, number - 1).replace(rotated(self._path, number))
        self._path.replace(rotated(self._path, 1))
        self.close()


def _cut_torn_tail(descriptor: int, path: Path) -> int:
    """Truncate an open file to the end of its last whole line, and return that size."""
    size = os.fstat(descriptor).st_size
    end = _end_of_last_line(descriptor, size)
    if end < size:
        logger.warning("%s: dropped %d bytes of a torn last line", path, size - end)
        os.ftruncate(descriptor, end)
    return end


def _end_of_last_line(descriptor: int, size: int) -> int:
    start = size
    while start > 0:
        stop, start = start, max(0, start - _BLOCK)
        newline = os.pread(descriptor, stop - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0
