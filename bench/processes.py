"""Reads the cost of a process from Linux: CPU time, memory, and bytes on disk."""

import os
import platform
import threading
import time
from pathlib import Path
from typing import NamedTuple

_CPU_OF_PROCESS = 2
#: The states of proc(5): running or waiting for a core, and waiting for a disk.
_BUSY = ("R", "D")
_GLANCE_SECONDS, _CALM_GLANCES = 0.01, 3
_IDLE_AFTER_SECONDS = 10.0


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of all threads of a process, ended ones included, to the nanosecond.

    The id of a process's CPU clock is computed as in the C library, since Python lacks clock_getcpuclockid(3).
    """
    return time.clock_gettime((~pid << 3) | _CPU_OF_PROCESS)


def until_idle(*pids: int) -> None:
    """Waits until all threads of these processes, except this one, are idle; ten seconds at most.

    LevelDB goes on compacting in its own thread after a write returns, which is part of the write's cost. The thread's state says
    when it is done; its CPU time does not, since the thread may wait for a core.
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
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return False


def _state(task: Path) -> str:
    """Returns the state's letter; an empty text for a thread that has just ended."""
    try:
        return task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Memory(NamedTuple):
    """MiB in RAM. ``mapped``: pages of files, mostly tables, which the kernel can reclaim. ``own``: the rest."""

    own: float
    mapped: float


def memory(pid: int) -> Memory:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines if words[0].startswith("Rss")}
    return Memory(kibibytes["RssAnon:"] / 1024, kibibytes["RssFile:"] / 1024)


def disk_bytes(directory: Path) -> int:
    """Returns the total size of the files in a directory, which may be written to meanwhile."""
    total = 0
    for entry in os.scandir(directory):
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            continue
    return total


def machine() -> str:
    """Returns processor, usable cores, kernel and Python as text."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} × {model}, Linux {platform.release()}, Python {platform.python_version()}"
