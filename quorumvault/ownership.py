"""Owners and modes of the files that a command makes or replaces.

A file that takes another's place has its owner and its mode, whoever runs the command: a node that runs as a user of its own goes
on reading it. What root makes in the folder of somebody else, for that folder's node, belongs to whom the folder belongs to.

Folders are shared: in /tmp another user may put a link, or a file, where this process is about to write. So links are followed
only if this user or root made them, and owners are changed through descriptors, of files that have one name.
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
#: Opens a folder that is no link, without a right to read it: those above one's own may be for passing through alone.
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS_LIST: Final = "system.posix_acl_access"
#: Links that are followed in one path, as many as Linux follows (path_resolution(7)).
_MOST_LINKS: Final = 40


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if this host has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def is_open_to_others(found: os.stat_result) -> bool:
    """True if others than its owner may get at a file.

    One of root's may be read by a group other than root's: so a node under a user of its own is given a secret that it cannot
    change, and so Kubernetes mounts one (``fsGroup``). PostgreSQL has the same rule.
    """
    is_given = found.st_uid == ROOT and (found.st_gid != ROOT or os.geteuid() != ROOT)
    return bool(found.st_mode & _OTHERS & ~(stat.S_IRGRP if is_given else 0))


@contextlib.contextmanager
def umask(mask: int) -> Iterator[int]:
    """The process makes files with this mask until the block ends. Yields the mask that it had.

    It is the process's: for commands, not for what runs beside other threads' work.
    """
    before = os.umask(mask)
    try:
        yield before
    finally:
        os.umask(before)


def reach(source: Path | int, group: int) -> int:
    """The widest mode for a file of this group that is made out of ``source``, a path or a descriptor.

    A group that is not the source's gets nothing. If the source has an access list, its mode's bits for the group are the most
    that anybody in the list has, and not what the group has: it gets nothing either.
    """
    found = os.stat(source)
    is_its = found.st_gid == group and _access_list(source) is None
    return (0o700 | found.st_mode) & (0o777 if is_its else 0o707)


def group_of_new(folder: Path) -> int:
    """Return the group that a file gets which this process makes in a folder."""
    found = folder.stat()
    return found.st_gid if found.st_mode & stat.S_ISGID else os.getegid()


def _access_list(file: Path | int, *, follow: bool = True) -> bytes | None:
    """The POSIX access list of a file as the kernel writes it. None: there is none but what the mode says."""
    try:
        return os.getxattr(file, _ACCESS_LIST, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOENT):
            raise
        return None


def set_mode(descriptor: int, mode: int) -> None:
    """Gives an open new file a mode, and takes the access list from it that folders may have for what is made in them."""
    with contextlib.suppress(OSError):  # there is none
        os.removexattr(descriptor, _ACCESS_LIST)
    os.fchmod(descriptor, mode)


def followed(path: Path) -> Path:
    """Return where ``path`` leads: absolute, without links; the last parts need not be there.

    Raises ConfigError for a link of another user's: it leads wherever that user wants this file to be.
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
    """A descriptor of a folder, by a path that has no link in it (``followed``). It stays that folder, whoever moves it.

    It is good for names in the folder, not for reading or syncing it. Raises ConfigError for a link that was put there since.
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
    """None if it is no link, or not there."""
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
    """Check that a new file can take the place of one at ``path``, if it is there, and keep its owner. No links are followed.

    Raises ConfigError for a file of another user's, unless root asks: the owner could not read the new one. Raises it for
    root too if somebody else put the file into a folder where everybody can: that user would own the values.
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
    """Raises ConfigError for a file that somebody else has put into a folder where everybody can: what is written is theirs."""
    try:
        found, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    if folder.st_mode & stat.S_IWOTH and found.st_uid not in (os.geteuid(), folder.st_uid):
        who = user_name(found.st_uid)
        raise ConfigError(path, "", f"is a file of {who}, in a folder where everybody can put files: name another place")


def take_after(descriptor: int, path: Path, before: os.stat_result, widest: int = 0o777) -> None:
    """Gives an open new file the owner, mode and access list of ``before``, the file at ``path`` whose place it is to take.

    ``widest`` is a mode beyond which nobody else gets at it: for an access list, beyond which nobody in it does. Raises
    ConfigError if the owner cannot be kept.
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
    """Gives an open file or folder to ``owner``'s owner, if root runs this and has made it.

    A file with two names may be one of root's that somebody has linked to: it is left alone.
    """
    found = os.fstat(descriptor)
    is_ours = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
    if os.geteuid() == ROOT == found.st_uid != owner.st_uid and is_ours:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def hand_over(folder: Path, owner: os.stat_result | None = None) -> None:
    """Gives what root has made in ``folder``, and that itself, to ``owner``'s owner; None: to that of the folder.

    The folder comes last, so nobody is in it before. No link is followed.
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
    """Makes a folder if it is not there, and those above it that are missing. In none of the new ones may others make files.

    If root makes it, each belongs to whom the one above it belongs to.
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
