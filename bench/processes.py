"""What a process costs: CPU time, memory, and bytes on disk, as Linux tells them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_CPU_OF_PROCESS = 2
#: Less than a tenth of one core for this long is quiet; nodes that only ping each other need a hundredth.
_GLANCE_SECONDS = 0.025
_QUIET_CPU_SECONDS = 0.1 * _GLANCE_SECONDS
_QUIET_AFTER_SECONDS = 10.0


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, those that have ended included, to the nanosecond.

    The id of a process's CPU clock is made as the C library does it, which Python has no call for (clock_getcpuclockid(3)).
    """
    return time.clock_gettime((~pid << 3) | _CPU_OF_PROCESS)


def until_quiet(cpu: Callable[[], float]) -> float:
    """Waits until a CPU clock all but stands still, and reads it. LevelDB compacts on, in a thread of its own, after a write has
    returned; that is part of what the write cost. A clock that does not come to rest is read after ten seconds."""
    deadline = time.monotonic() + _QUIET_AFTER_SECONDS
    before = cpu()
    while True:
        time.sleep(_GLANCE_SECONDS)
        now = cpu()
        if now - before < _QUIET_CPU_SECONDS or time.monotonic() > deadline:
            return now
        before = now


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
