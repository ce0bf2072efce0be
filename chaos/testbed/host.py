"""The machine of a run: its tools, mounts that end with the run, and moving or damaging files."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

_SECONDS = 60.0
#: Linux's flag for unshare(2).
_CLONE_NEWNS = 0x00020000


class Unavailable(Exception):
    """This is impossible on this machine, or at this time. The message says why."""


def tool(*command: str) -> None:
    """Runs a command that must succeed soon. Raises Unavailable with the command's output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")


def private_mounts() -> None:
    """Makes new mounts private: only this process and its children see them, and they end with these. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("a small file system can be mounted by root alone")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise Unavailable(f"no mounts of its own: {os.strerror(ctypes.get_errno())}")
    tool("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def small_disk(data: Path, megabytes: int) -> Iterator[None]:
    """Mounts a file system in memory at a node's data directory for the block, in which alone the node may run.

    Call ``private_mounts`` before.
    """
    aside = data.with_name(f"{data.name}.aside")
    move_all(data, aside)
    tool("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "chaos", str(data))
    try:
        move_all(aside, data)
        yield
        move_all(data, aside)
    finally:
        tool("umount", str(data))
    move_all(aside, data)
    aside.rmdir()


def move_all(source: Path, target: Path) -> None:
    """Moves the content of one directory into another, also between file systems. Deletes sockets, which no process serves.

    Raises FileExistsError for an existing name: a folder would be moved into the folder of that name.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    for path in source.iterdir():
        if (target / path.name).exists():
            raise FileExistsError(f"{target / path.name} is there already")
        if path.is_socket():
            path.unlink()
        else:
            shutil.move(path, target / path.name)


def flip_bits(path: Path, masks: Iterable[tuple[int, int]]) -> None:
    """Flips the bits of a mask in the byte at each offset, and syncs the file."""
    with path.open("r+b") as file:
        for offset, mask in masks:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ mask]))
        file.flush()
        os.fsync(file.fileno())


def leave(number: int, frame: object) -> NoReturn:
    """Turns a signal into an exception, so that clean-up runs."""
    raise SystemExit(128 + number)
