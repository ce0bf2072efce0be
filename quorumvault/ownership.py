"""Owners and modes of the files that a command makes or replaces.

A file that replaces another gets that file's owner and mode, whoever runs the command, so that a node that runs as its own user
can still read it. Files that root makes in another user's folder, for that folder's node, belong to the folder's owner.

Folders may be shared: in /tmp another user may put a link, or a file, where this process is about to write. So links are followed
only if this user or root made them, and owners are changed only through descriptors, and only of files with a single name.
"""

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from quorumvault.errors import ConfigError

ROOT: Final = 0
_GROUP, _OTHERS = stat.S_IRWXG, stat.S_IRWXG | stat.S_IRWXO
#: Opens a folder that is not a link, without the right to read it: parent folders may grant only the right to pass through.
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS_LIST: Final = "system.posix_acl_access"
#: Most links that are followed in one path, as in Linux (path_resolution(7)).
_MOST_LINKS: Final = 40


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if this host has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def is_open_to_others(found: os.stat_result) -> bool:
    """True if users other than its owner may access a file.

    A group other than root's may read a file of root's: this gives a node that runs as its own user a secret that it cannot
    change, and Kubernetes mounts secrets this way (``fsGroup``). PostgreSQL has the same rule.
    """
    is_given = found.st_uid == ROOT and (found.st_gid != ROOT or os.geteuid() != ROOT)
    return bool(found.st_mode & _OTHERS & ~(stat.S_IRGRP if is_given else 0))


@contextlib.contextmanager
def umask(mask: int) -> Iterator[int]:
    """Set the process's file mode mask until the block ends. Yields the previous mask.

    The mask applies to the whole process: use this in commands, not beside the work of other threads.
    """
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


def reach(source: Path | int, group: int) -> int:
    """The widest mode for a file of this group that is made from ``source``, a path or a descriptor.

    A group other than the source's gets no rights. If the source has an access list, the group bits of its mode are the most that
    anyone in the list has, and not the rights of the group: then the group gets no rights either.
    """
    found = os.stat(source)
    is_its = found.st_gid == group and _access_list(source) is None
    return (0o700 | found.st_mode) & (0o777 if is_its else 0o707)


def group_of_new(folder: Path) -> int:
    """Return the group of the files that this process makes in a folder."""
    found = folder.stat()
    return found.st_gid if found.st_mode & stat.S_ISGID else os.getegid()


def _access_list(file: Path | int, *, follow: bool = True) -> bytes | None:
    """The POSIX access list of a file, as the kernel writes it; None if there is none besides the mode."""
    try:
        return os.getxattr(file, _ACCESS_LIST, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            raise
        return None


def set_mode(descriptor: int, mode: int) -> None:
    """Set the mode of an open new file, and remove the access list that it may have inherited from its folder."""
    with contextlib.suppress(OSError):  # there is none
        os.removexattr(descriptor, _ACCESS_LIST)
    os.fchmod(descriptor, mode)


def followed(path: Path) -> Path:
    """Return the absolute path, without links, to which ``path`` leads; its last parts need not exist.

    Raises ConfigError for another user's link: that user would decide where this file goes.
    """
    ahead = list(reversed(path.absolute().parts))
    found, links = Path(ahead.pop()), 0
    while ahead:
        part = ahead.pop()
        here = found.parent if part == ".." else found / part
        target = None if part == ".." else _link_target(here)
        if target is None:
            found = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise ConfigError(path, "", "expected a path that ends; its links lead in a circle")
        parts = Path(target).parts
        if Path(target).is_absolute():
            found, parts = Path(parts[0]), parts[1:]
        ahead += reversed(parts)
    return found


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder, by a path without links (``followed``). It refers to the same folder even if that is moved.

    It can be used for names in the folder, not to read or sync it. Raises ConfigError for a link that was put there since.
    """
    descriptor = os.open(path.anchor, _FOLDER)
    try:
        for part in path.parts[1:]:
            try:
                following = os.open(part, _FOLDER, dir_fd=descriptor)
            except NotADirectoryError:
                raise ConfigError(path, "", f"{part} in it is no folder any more: nothing is written there") from None
            os.close(descriptor)
            descriptor = following
        yield descriptor
    finally:
        os.close(descriptor)


def _link_target(path: Path) -> str | None:
    """The target of a link; None if the path is not a link, or does not exist."""
    try:
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode):
            return None
        target = os.readlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if found.st_uid not in (ROOT, os.geteuid()):
        raise ConfigError(path, "", f"is a link that {user_name(found.st_uid)} made: name the place itself")
    return target


def require_replaceable(path: Path) -> None:
    """Check that a new file can replace the file at ``path``, if there is one, and keep its owner. No links are followed.

    Raises ConfigError for another user's file, unless root runs this: the owner could not read the new file. Raises it for root
    too if another user put the file into a folder that everyone can write: that user would own the values.
    """
    require_not_planted(path)
    try:
        found, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    me, owner = os.geteuid(), user_name(found.st_uid)
    if found.st_uid != me != ROOT:
        raise ConfigError(path, "", f"belongs to {owner} and would become yours: remove it first, or run this as {owner}")
    inherits = folder.st_gid == found.st_gid and folder.st_mode & stat.S_ISGID
    mine = me == ROOT or inherits or found.st_gid in (os.getegid(), *os.getgroups())
    if found.st_mode & _GROUP and not mine:
        raise ConfigError(path, "", f"is for group {found.st_gid}, which you are not in: remove it first, or run this as root")


def require_not_planted(path: Path) -> None:
    """Raises ConfigError for a file that another user put into a folder that everyone can write: that user would own the data."""
    try:
        found, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    if folder.st_mode & stat.S_IWOTH and found.st_uid not in (os.geteuid(), folder.st_uid):
        who = user_name(found.st_uid)
        raise ConfigError(path, "", f"is a file of {who}, in a folder where everybody can put files: name another place")


def take_after(descriptor: int, path: Path, before: os.stat_result, widest: int = 0o777) -> None:
    """Give an open new file the owner, mode and access list of ``before``, the file at ``path`` that it will replace.

    ``widest`` is the widest mode that others get; it also bounds everyone in an access list. Raises ConfigError if the owner
    cannot be kept.
    """
    made, mode = os.fstat(descriptor), stat.S_IMODE(before.st_mode) & widest
    owner = (before.st_uid, before.st_gid)
    try:
        if (made.st_uid, made.st_gid) != owner:
            os.fchown(descriptor, *owner)
    except PermissionError:
        if made.st_uid != before.st_uid or mode & _GROUP:
            who = user_name(before.st_uid)
            raise ConfigError(path, "", f"belongs to {who}, and so has to what replaces it: run this as {who} or root") from None
    entries = _access_list(path, follow=False)
    set_mode(descriptor, mode & ~(_GROUP if entries else 0))
    if entries is not None:
        with contextlib.suppress(OSError):  # where lists are not known, the group has nothing: its bits were not its own
            os.setxattr(descriptor, _ACCESS_LIST, entries)
            os.fchmod(descriptor, mode)


def belong_to(descriptor: int, owner: os.stat_result) -> None:
    """Give an open file or folder to ``owner``'s owner, if root runs this and has made it.

    A file with two names may be a file of root's that another user has linked to, so it is left alone.
    """
    found = os.fstat(descriptor)
    is_ours = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
    if os.geteuid() == ROOT == found.st_uid != owner.st_uid and is_ours:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def hand_over(folder: Path, owner: os.stat_result | None = None) -> None:
    """Give ``folder``, and everything that root has made in it, to ``owner``'s owner; if None, to the folder's owner.

    The folder is given away last, so that no one can enter it before. No link is followed.
    """
    folder = folder.resolve()
    heir = folder.stat() if owner is None else owner
    if os.geteuid() != ROOT or heir.st_uid == ROOT:
        return
    for _, _, names, descriptor in os.fwalk(folder, topdown=False):
        for name in names:
            with contextlib.suppress(FileNotFoundError), _file(name, descriptor) as file:
                if file is not None:
                    belong_to(file, heir)
        belong_to(descriptor, heir)


@contextlib.contextmanager
def _file(name: str, folder: int) -> Iterator[int | None]:
    """An open file of a folder; None for a link or a socket."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, and its missing parents, if they do not exist. Other users may not make files in the new folders.

    If root makes them, each new folder belongs to the owner of its parent.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o755)
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            belong_to(descriptor, each.parent.stat())
        finally:
            os.close(descriptor)
