"""Files that survive a crash: the one place in which the package syncs what it writes (Pillai et al., ALICE, OSDI '14).

A file is replaced by a draft that is written beside it, synced, and renamed over it; then the directory is synced. After a
crash at any instant there is the old file or the new one, whole. ``create`` and ``copy`` have no old file to keep: a crash may
leave a part of the new one, so they are for directories that nobody reads before their maker has finished. All functions raise
OSError.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from quorumvault.ownership import belong_to, set_mode, take_after

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: a synced file whose name is lost is lost with it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that something else has written. Its name is not synced."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a new file and sync it, but not its name. Its mode is ``mode`` less the umask, from its first instant.

    If root makes it, it belongs to the owner of its directory. Raises FileExistsError if there is one; after another error there
    is none.
    """
    with _new(path, mode) as file:
        file.write(content)
        belong_to(file.fileno(), path.parent.stat())


def copy(source: Path, path: Path, mode: int = 0o600) -> None:
    """Copy a file to a new one with exactly this mode, and sync it and its name.

    Raises FileExistsError if there is one; after another error there is none.
    """
    with source.open("rb") as content, _new(path, 0o600) as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), mode)
    sync_directory(path.parent)


def extend(path: Path, size: int, data: bytes = b"") -> None:
    """Cut a file to ``size`` bytes, add ``data``, and sync it and its name. A missing file is made.

    A crash may leave a part of ``data``: whoever reads the file has to recognise that, and to give the right ``size`` next time.
    """
    with path.open("ab") as file:
        file.truncate(size)
        file.write(data)
        _sync(file)
    sync_directory(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Replace a file of this process's own, which no other process replaces at the same time. Durable when it returns.

    The new file has the mode that the umask leaves it; if root makes it, it belongs to the owner of its directory. A draft that a
    crash has left is removed by the next call.
    """
    with _draft(_only_draft(path), path, 0o666, lambda descriptor: belong_to(descriptor, path.parent.stat())) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600, widest: int = 0o777, alone: bool = False) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of a person's file when the block ends without an error. Durable afterwards.

    It keeps the owner and the mode of the file that is there, as far as ``widest`` allows; where there is none its mode is
    ``mode``, whatever the umask is. Several processes may replace one path at once, and the last one wins, unless the caller
    has made sure that it is ``alone``: then a draft that a crash has left is removed. Raises ConfigError for an owner that cannot
    be kept.
    """

    def settle(descriptor: int) -> None:
        if path.exists():
            take_after(descriptor, path, path.lstat(), widest)
        else:
            set_mode(descriptor, mode)

    draft = _only_draft(path) if alone else path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _draft(draft, path, 0o600, settle) as file:
        yield file


def _only_draft(path: Path) -> Path:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    return draft


@contextlib.contextmanager
def _draft(draft: Path, path: Path, mode: int, settle: Callable[[int], None]) -> Iterator[BinaryIO]:
    with _new(draft, mode) as file:
        yield file
        settle(file.fileno())
    try:
        draft.replace(path)
    except BaseException:
        _remove(draft)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def _new(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file, synced when the block has ended, and removed if that fails."""
    descriptor = os.open(path, _NEW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            _sync(file)
    except BaseException:
        _remove(path)
        raise


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the error that led here says more
        path.unlink()
