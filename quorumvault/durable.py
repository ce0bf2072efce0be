"""Files that survive a crash: the only module in which the package syncs what it writes (Pillai et al., ALICE, OSDI '14).

To replace a file, a draft is written beside it, synced, and renamed over it; then the directory is synced. After a crash at any
instant there is either the old file or the new one, complete. If the file system supports it, a draft of a person's file has no
name until it is complete, so that it vanishes with its process, whatever ends the process. ``create`` and ``copy`` have no old
file to keep: a crash may leave a part of the new file. So they are for directories that no one reads before their maker has
finished. All functions raise OSError.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from quorumvault.ownership import belong_to, set_mode, take_after

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_UNNAMED: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
#: What a kernel or a file system answers that has no files without a name, no hard links, or no /proc.
_LACKS: Final = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EPERM, errno.EXDEV, errno.ENOENT, errno.ENOSYS))
#: The drafts of this process that have a name.
_named: Final[set[Path]] = set()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: a synced file whose name is lost is lost with it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that other code has written. The file's name is not synced."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a new file and sync it, but not its name. From its first instant its mode is ``mode`` without the umask's bits.

    If root makes the file, it belongs to the owner of its directory. Raises FileExistsError if it exists; after any other error
    it does not exist.
    """
    with _new(path, mode) as file:
        file.write(content)
        belong_to(file.fileno(), path.parent.stat())


def copy(source: Path, path: Path, mode: int = 0o600) -> None:
    """Copy a file to a new one with exactly this mode, and sync the new file and its name.

    Raises FileExistsError if the new file exists; after any other error it does not exist.
    """
    with source.open("rb") as content, _new(path, 0o600) as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), mode)
    sync_directory(path.parent)


def extend(path: Path, size: int, data: bytes = b"") -> None:
    """Cut a file to ``size`` bytes, add ``data``, and sync it and its name. A missing file is made.

    A crash may leave a part of ``data``: a reader must recognise that, and pass the right ``size`` next time.
    """
    with path.open("ab") as file:
        file.truncate(size)
        file.write(data)
        _sync(file)
    sync_directory(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Replace a file of this process, which no other process replaces at the same time. Durable when it returns.

    The new file has the mode that the umask leaves it; if root makes it, it belongs to the owner of its directory. The next call
    removes a draft that a crash has left.
    """
    with _draft(_only_draft(path), path, 0o666, lambda descriptor: belong_to(descriptor, path.parent.stat())) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(
    path: Path, *, mode: int = 0o600, widest: int = 0o777, alone: bool = False, exclusive: bool = False
) -> Iterator[BinaryIO]:
    """Yield a file that replaces a person's file when the block ends without an error. Durable afterwards.

    The new file keeps the owner and the mode of the existing file, as far as ``widest`` allows. If there is none, the mode is
    ``mode``, whatever the umask is. Several processes may replace one path at once; the last one wins. If the caller is sure to
    be ``alone``, a draft that a crash has left is removed. ``exclusive``: replace nothing; raises FileExistsError if the path
    exists by then. Raises ConfigError if the owner cannot be kept.
    """

    def settle(descriptor: int) -> None:
        if not exclusive and path.exists():
            take_after(descriptor, path, path.lstat(), widest)
        else:
            set_mode(descriptor, mode)

    if alone:
        with _draft(_only_draft(path), path, 0o600, settle) as file:
            yield file
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with (_unnamed if _has_unnamed(draft) else _draft)(draft, path, 0o600, settle, exclusive=exclusive) as file:
        yield file


def abandon_drafts() -> None:
    """Remove the drafts of this process, right before it ends in the middle of its work."""
    for draft in list(_named):
        _remove(draft)


def _only_draft(path: Path) -> Path:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    return draft


@contextlib.contextmanager
def _draft(draft: Path, path: Path, mode: int, settle: Callable[[int], None], *, exclusive: bool = False) -> Iterator[BinaryIO]:
    _named.add(draft)
    try:
        with _new(draft, mode) as file:
            yield file
            settle(file.fileno())
        try:
            (_give_once if exclusive else os.replace)(draft, path)
        except BaseException:
            _remove(draft)
            raise
    finally:
        _named.discard(draft)
    sync_directory(path.parent)


def _give_once(draft: Path, path: Path) -> None:
    """Gives a draft the name that it is for. Raises FileExistsError if something has it."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _LACKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(draft, path)
    else:
        os.unlink(draft)


@contextlib.contextmanager
def _unnamed(draft: Path, path: Path, mode: int, settle: Callable[[int], None], *, exclusive: bool = False) -> Iterator[BinaryIO]:
    """Like ``_draft``; the draft gets its name when it is whole, for the instant before it takes the place of ``path``."""
    with os.fdopen(os.open(path.parent, _UNNAMED, mode), "wb") as file:
        yield file
        settle(file.fileno())
        _sync(file)
        _name(file.fileno(), path if exclusive else draft)
    if not exclusive:
        try:
            os.replace(draft, path)
        except BaseException:
            _remove(draft)
            raise
    sync_directory(path.parent)


def _name(descriptor: int, path: Path) -> None:
    """Gives a file without a name one (open(2), O_TMPFILE)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # Python follows the link only if a folder is given
        os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _has_unnamed(draft: Path) -> bool:
    """Returns whether a file without a name can get that of a draft later: tried, with an empty one."""
    try:
        descriptor = os.open(draft.parent, _UNNAMED, 0o600)
        try:
            _name(descriptor, draft)
        finally:
            os.close(descriptor)
        os.unlink(draft)
    except OSError as error:
        _remove(draft)
        if error.errno not in _LACKS:
            raise
        return False
    return True


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
    with contextlib.suppress(OSError):  # the error that led here is more useful
        path.unlink()
