"""The files of the event log: events.jsonl, then events.jsonl.1 (the newest), .2, … up to the oldest that is kept.

Files beyond ``keep`` stay until they are ``keep_days`` old, while all files together have at most ``most_bytes`` and the disk
has room: an unbounded log would fill the disk, and the node would then refuse writes. The oldest files are removed first.

Only one process appends, so bytes after the last newline are an unfinished line, torn by a crash, a power cut, or a full disk.
Such a tail is cut off before anything is appended; otherwise the next line would be glued to it, and both events would be lost.
Whole lines are never touched.
"""

import logging
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

from quorumvault.config.cluster import EventLogSettings

logger = logging.getLogger("quorumvault.events")

_BLOCK = 64 * 1024
#: Largest single write in bytes, so that a long backlog is neither one huge write nor one call for each line.
_CHUNK_BYTES = 1024 * 1024
_DAY = 86_400
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
#: Most files. A rotation renames all of them, which takes some 10 ms for so many, on the writer's thread.
_MOST_FILES = 1000


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def rotated_files(path: Path) -> dict[int, Path]:
    """Return the rotated files that exist, by their numbers, the newest first. Raises OSError."""
    prefix = f"{path.name}."
    ends = [name.removeprefix(prefix) for name in os.listdir(path.parent) if name.startswith(prefix)]
    return {number: rotated(path, number) for number in sorted(int(end) for end in ends if _NUMBER.fullmatch(end))}


class EventFile:
    """Appends lines and rotates. Blocking, and not thread-safe: one thread owns it. Any call may raise OSError.

    ``now`` returns seconds since 1970; ``has_room`` returns whether the disk has room for files beyond ``keep``.
    """

    def __init__(self, path: Path, settings: EventLogSettings, now: Callable[[], float], has_room: Callable[[], bool]) -> None:
        self._path = path
        self._settings = settings
        self._now = now
        self._has_room = has_room
        #: True while there may be files beyond ``keep``.
        self._extra = True
        self._descriptor: int | None = None
        self._size = 0
        #: True after a write that has not ended well: the file may have more than ``_size`` bytes.
        self._torn = False

    def append(self, lines: deque[bytes]) -> None:
        """Write the lines in order, removing each from the left once it is written. After an OSError the rest is still there."""
        descriptor = self._open()
        if self._extra and not self._has_room():
            self._remove_old()
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
        """Return the first lines that still fit into the file, or one line if none does, for which the caller rotates."""
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
        """Return the open file. Opens it anew if it was deleted, because no one would find lines in a file without a name."""
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
        """Rename every file up to the first gap to the next number. Then remove the files that are not kept any longer.

        A rotation that failed on its way leaves a gap, so trying again loses nothing more.
        """
        files = rotated_files(self._path)
        free = next(number for number in range(1, len(files) + 2) if number not in files)
        for number in range(free, 1, -1):
            rotated(self._path, number - 1).replace(rotated(self._path, number))
        self._path.replace(rotated(self._path, 1))
        self.close()
        self._remove_old()

    def _remove_old(self) -> None:
        """Remove files beyond ``keep``, the oldest first, until one may stay."""
        files = rotated_files(self._path)
        found = {number: path.stat() for number, path in files.items()}
        total = sum(status.st_size for status in found.values()) + self._settings.file_bytes
        extra = [number for number in found if number > self._settings.keep]
        while extra:
            number = extra[-1]
            is_old = self._now() - found[number].st_mtime >= self._settings.keep_days * _DAY
            if not is_old and total <= self._settings.most_bytes and len(found) <= _MOST_FILES and self._has_room():
                break
            logger.info("%s: removed, %s", files[number], "its time is over" if is_old else "for want of room")
            files[number].unlink()
            extra.pop()
            total -= found.pop(number).st_size
        self._extra = bool(extra)


def _cut_torn_tail(descriptor: int, path: Path) -> int:
    """Truncate an open file to the end of its last whole line. Returns that size in bytes."""
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
