"""Refuses files of a node that other users could change: a user who can write the key file can read every value.

A file is refused if its owner is neither root nor the node's user, or if a group or everyone can write it. Its folder is refused
if everyone can replace files in it, or if a group of its owner can. A folder of root's may be writable by a group, as Kubernetes
volumes with ``fsGroup`` are. So may a folder in which users cannot remove others' files (sticky).
"""

import os
import stat
from pathlib import Path

from quorumvault.errors import ConfigError
from quorumvault.ownership import ROOT, user_name


def guarded(path: Path) -> Path:
    """Return ``path``. Raises ConfigError if others than root and this process's user can change or replace the file."""
    try:
        # A link is only as safe as the folder that it is in.
        for folder in dict.fromkeys((path.parent, path.resolve().parent)):
            _check_folder(folder, folder.stat())
        _check_file(path, path.stat())
    except OSError as error:
        raise ConfigError(path, "", f"expected a file that can be read: {error.strerror}") from None
    return path


def close_folder(folder: Path) -> None:
    """Remove others' right to put files into a folder, so that a node starts there. Raises PermissionError if not allowed."""
    found = folder.stat()
    if _is_open(found):
        folder.chmod(stat.S_IMODE(found.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def _check_file(path: Path, found: os.stat_result) -> None:
    _check_owner(path, found)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            path, "", f"{_who(found)} can write it (mode {_mode(found)}), and so decide who gets values: chmod go-w it"
        )


def _check_folder(folder: Path, found: os.stat_result) -> None:
    _check_owner(folder, found)
    if _is_open(found):
        words = f"{_who(found)} can put other files into it (mode {_mode(found)}), and so decide who gets values: chmod go-w it"
        raise ConfigError(folder, "", words)


def _is_open(folder: os.stat_result) -> bool:
    """True if others can replace a file in this folder."""
    of_group = 0 if folder.st_uid == ROOT else stat.S_IWGRP
    return bool(folder.st_mode & (stat.S_IWOTH | of_group)) and not folder.st_mode & stat.S_ISVTX


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (ROOT, os.geteuid()):
        owner, me = user_name(found.st_uid), user_name(os.geteuid())
        raise ConfigError(
            path, "", f"{owner} owns it and can change it, and the node runs as {me}: run it as {owner}, or chown it"
        )


def _who(found: os.stat_result) -> str:
    return "everybody" if found.st_mode & stat.S_IWOTH else f"group {found.st_gid}"


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
