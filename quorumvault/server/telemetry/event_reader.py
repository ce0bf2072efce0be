"""Reads a node's event log while the node writes and rotates it: first the last events, then new ones as they are added."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from quorumvault.server.telemetry.event_file import rotated_files
from quorumvault.server.telemetry.event_log import Event

_decode = msgspec.json.Decoder(Event).decode


class Entry(NamedTuple):
    """An event, and its line as the file has it."""

    event: Event
    line: bytes


Wanted = Callable[[Event], bool]


class EventReader:
    """Reads events.jsonl at ``path`` and the files behind it. Skips lines that hold no event."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._live: BinaryIO | None = None

    def last(self, count: int, wanted: Wanted) -> list[Entry]:
        """Return the last ``count`` wanted events, oldest first. ``more`` goes on from here."""
        self.close()
        found: deque[Entry] = deque()
        seen: set[int] = set()
        for path in self._paths():
            file = _open(path)
            if file is None:
                continue
            inode = os.fstat(file.fileno()).st_ino
            if inode not in seen:  # else the node renamed it while this loop ran
                seen.add(inode)
                found.extendleft(reversed(deque(_entries(file, wanted), maxlen=count - len(found))))
            if path is self._path:
                self._live = file
            else:
                file.close()
            if len(found) >= count:
                break
        return list(found)

    def more(self, wanted: Wanted) -> list[Entry]:
        """Return the wanted events that were added since the last call, across any rotations."""
        found: list[Entry] = []
        newer = [self._path]
        if self._live is not None:
            inode = os.fstat(self._live.fileno()).st_ino
            paths = self._paths()
            newer = paths[: next((age for age, path in enumerate(paths) if _inode(path) == inode), 1)]
            found.extend(_entries(self._live, wanted))
        for path in reversed(newer):
            if (file := _open(path)) is not None:
                self.close()
                self._live = file
                found.extend(_entries(file, wanted))
        return found

    def _paths(self) -> list[Path]:
        """Return the log's files, the newest first."""
        return [self._path, *(rotated_files(self._path).values() if self._path.parent.is_dir() else ())]

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _entries(file: BinaryIO, wanted: Wanted) -> Iterator[Entry]:
    """Yield the wanted events from the file's position to the end of its last whole line, and leave the position there."""
    for line in iter(file.readline, b""):
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        try:
            event = _decode(line)
        except (ValueError, RecursionError):  # not an event's JSON, not UTF-8, or nested too deep
            continue
        if wanted(event):
            yield Entry(event, line)
