"""Runs a command as a process of its own and measures it from outside: seconds, CPU, and peak memory."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

#: Longer than any command takes on a busy machine.
_PATIENCE_SECONDS = 1800.0

# Starts the command, waits for it, and writes down its cost. This process has only a few MiB: ru_maxrss keeps the peak from
# before an exec (getrusage(2)), and the benchmark's own is large. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL: the command ends with the
# benchmark.
_METER = """
import ctypes, json, os, sys, time
report, command = sys.argv[1], sys.argv[2:]
prctl = ctypes.CDLL(None).prctl
prctl(1, 9)
begun, meter = time.perf_counter(), os.getpid()
pid = os.fork()
if not pid:
    prctl(1, 9)
    if os.getppid() != meter: os._exit(1)
    os.execv(command[0], command)
_, status, usage = os.wait4(pid, 0)
took = {"seconds": time.perf_counter() - begun, "cpu": usage.ru_utime + usage.ru_stime, "mib": usage.ru_maxrss / 1024}
with open(report, "w") as file: json.dump(took, file)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


class CommandFailed(Exception):
    """A measured process ended with an exit code other than 0. The message has its last output."""


@dataclass(frozen=True, slots=True)
class Took:
    """``seconds``: elapsed time. ``cpu``: CPU seconds of all threads. ``mib``: peak RSS (Linux's ru_maxrss)."""

    seconds: float
    cpu: float
    mib: float


def measure(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> tuple[Took, bytes]:
    """Runs a command, whose first word is a path, in ``directory``. Returns its cost and its standard output."""
    report = directory / "took.json"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _METER, str(report), *command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise CommandFailed(f"{Path(command[0]).name} ended with exit code {done.returncode}: {' / '.join(words)}")
    return msgspec.json.decode(report.read_bytes(), type=Took), done.stdout
