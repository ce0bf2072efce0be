"""Power cuts between two steps of work on a data directory: of a start, of a salvage, or of making a new disk.

before a file is synced                  the file has its content up to some byte
after a rename, a removal, a new folder  the directory has the old or the new name, until the directory is synced
before LevelDB writes a batch            the batch is absent; LevelDB has synced everything that it wrote before
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

from quorumvault.server.storage import leveldb
from quorumvault.server.storage.leveldb import LevelDBStore

#: A file or directory under any name: its device and inode number.
_Inode = tuple[int, int]


class PowerCut(BaseException):
    """Not an error that anything handles: no process is left to handle it."""


class _Unsynced(NamedTuple):
    directory: _Inode
    undo: Callable[[], object]


class PowerCuts:
    """Lets this many ``steps`` happen, and cuts the power before the next one."""

    def __init__(self, steps: int, rng: Random) -> None:
        self._left = steps
        self._rng = rng
        self._names: list[_Unsynced] = []
        self._synced: set[_Inode] = set()
        #: Files that were renamed to another file's name before they were synced.
        self._hollow: list[Path] = []

    @contextmanager
    def wired(self) -> Iterator[None]:
        """A context in which each step is counted. It raises PowerCut, with all names as the power cut leaves them."""
        steps = (
            (os, "fsync", self._fsync),
            (os, "rename", self._renaming(os.rename)),
            (os, "replace", self._renaming(os.replace)),
            (os, "unlink", self._unlinking(os.unlink)),
            (os, "mkdir", self._making(os.mkdir)),
            (leveldb, "_connect", self._counted(leveldb._connect)),
            (LevelDBStore, "write", self._counted(LevelDBStore.write)),
        )
        try:
            with ExitStack() as stack:
                for owner, name, step in steps:
                    stack.enter_context(mock.patch.object(owner, name, step))
                yield
        except PowerCut:
            self._lose()
            raise

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise PowerCut

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self._step()
            return real(*args, **options)

        return step

    def _fsync(self, descriptor: int) -> None:
        """Counts a step and syncs nothing: tmpfs has nothing to sync."""
        found = os.fstat(descriptor)
        inode = found.st_dev, found.st_ino
        try:
            self._step()
        except PowerCut:
            with suppress(OSError):  # a directory, or a file that another function has written
                os.ftruncate(descriptor, self._rng.randrange(found.st_size + 1))
            raise
        self._synced.add(inode)
        if stat.S_ISDIR(found.st_mode):
            self._names = [name for name in self._names if name.directory != inode]

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def step(source: Any, target: Any, **options: Any) -> None:
            self._step()
            source, target = Path(source), Path(target)
            before = target.read_bytes() if target.is_file() else None
            if source.is_file() and _inode(source) not in self._synced:
                self._hollow.append(target)
            real(source, target, **options)

            def undo() -> None:
                target.rename(source)
                if before is not None:
                    target.write_bytes(before)

            self._names.append(_Unsynced(_inode(target.parent), undo))

        return step

    def _unlinking(self, real: Callable[..., None]) -> Callable[..., None]:
        def step(path: Any, **options: Any) -> None:
            self._step()
            if options.get("dir_fd") is not None or not Path(path).exists():
                real(path, **options)  # a part of a tree that is being removed: any order is allowed
                return
            file, content = Path(path), Path(path).read_bytes()
            real(path, **options)
            self._names.append(_Unsynced(_inode(file.parent), lambda: file.write_bytes(content)))

        return step

    def _making(self, real: Callable[..., None]) -> Callable[..., None]:
        def step(path: Any, *args: Any, **options: Any) -> None:
            self._step()
            real(path, *args, **options)
            parent = Path(path).parent
            self._names.append(_Unsynced(_inode(parent), lambda: shutil.rmtree(path, ignore_errors=True)))

        return step

    def _lose(self) -> None:
        """Undoes the last changes of names. Changes survive in journal order; the dice say how many."""
        for path in self._hollow:
            if path.is_file():
                os.truncate(path, self._rng.randrange(path.stat().st_size + 1))
        kept = self._rng.randint(0, len(self._names))
        for name in reversed(self._names[kept:]):
            with suppress(OSError):  # the directory around it is gone too
                name.undo()


def _inode(path: Path) -> _Inode:
    found = path.stat()
    return found.st_dev, found.st_ino
