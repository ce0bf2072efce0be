"""Reads the cost of a process from Linux: CPU time, memory, and bytes on disk."""

import os
import platform
import threading
import time
from pathlib import Path
from typing import NamedTuple

_CPU_OF_PROCESS = 2
#: In proc(5)'s words: on a core or waiting for one, and waiting for a disk.
_BUSY = ("R", "D")
_GLANCE_SECONDS, _CALM_GLANCES = 0.01, 3
_IDLE_AFTER_SECONDS = 10.0


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, those that have ended included, to the nanosecond.

    The id of a process's CPU clock is made as the C library does it, which Python has no call for (clock_getcpuclockid(3)).
    """
    return time.clock_gettime((~pid << 3) | _CPU_OF_PROCESS)


def until_idle(*pids: int) -> None:
    """Waits until no thread of these processes has anything to do, this one aside; ten seconds at most.

    LevelDB compacts on, in a thread of its own, after a write has returned: that is part of what the write cost. Its
    state says when it is done, which its CPU time does not where it has to wait for a core.
    """
    deadline = time.monotonic() + _IDLE_AFTER_SECONDS
    calm = 0
    while calm < _CALM_GLANCES and time.monotonic() < deadline:
        time.sleep(_GLANCE_SECONDS)
        calm = 0 if any(map(_busy, pids)) else calm + 1


def _busy(pid: int) -> bool:
    own = str(threading.get_native_id())
    try:
        return any(_state(task) in _BUSY for task in Path(f"/proc/{pid}/task").iterdir() if task.name != own)
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False


def _state(task: Path) -> str:
    """One letter, none for a thread that has just ended."""
    try:
        return task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Memory(NamedTuple):
    """MiB in RAM. ``mapped`` are pages of files, above all tables, which the kernel takes back if need be; ``own`` the rest."""

    own: float
    mapped: float


def memory(pid: int) -> Memory:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines if words[0].startswith("Rss")}
    return Memory(kibibytes["RssAnon:"] / 1024, kibibytes["RssFile:"] / 1024)


def disk_bytes(directory: Path) -> int:
    """The sizes of the files in a directory that is written to meanwhile."""
    total = 0
    for entry in os.scandir(directory):
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            continue
    return total


def machine() -> str:
    """Processor, cores that may be used, kernel and Python."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} × {model}, Linux {platform.release()}, Python {platform.python_version()}"
