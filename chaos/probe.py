"""A control process beside the nodes: it does no vault work and measures how long the machine delays a process.

The probe sleeps, and sends itself a trivial request over loopback HTTP. Once a second it also works for a moment, since a
scheduler favours processes that mostly sleep, and syncs a block of its own. Any delay in these is a delay that the machine
imposes on every process, the nodes included. The probe tells apart who keeps the machine busy: the nodes and the harness, or
others. ``watched`` runs the probe (``python -m chaos.probe``) and writes its measurements into the history.
"""

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from chaos.recorder import Recorder
from chaos.testbed.history import Machine

#: Seconds between two answers, and between two lines about them.
_PAUSE, _LINE = 0.1, 1.0
#: CPU seconds of work in each second: many times a scheduler's time slice, and little beside the nodes' work.
_WORK = 0.04
_BLOCK = bytes(4096)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
_REQUEST = b"GET / HTTP/1.1\r\nHost: probe\r\n\r\n"
_END_OF_HEAD = b"\r\n\r\n"
#: Columns of the first line of /proc/stat, after its name: the time in which no process ran.
_IDLE = (3, 4)
#: The columns of time: user, nice, system, idle, iowait, irq, softirq, steal. Guest time is part of user time.
_COLUMNS = 8


@contextlib.asynccontextmanager
async def watched(recorder: Recorder, place: Path) -> AsyncIterator[None]:
    """Watches the machine during the block. ``place`` is on the disk whose syncs are measured."""
    command = (sys.executable, "-P", "-m", "chaos.probe", str(place / "probe"))
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=variables)
    reading = asyncio.create_task(_write_down(process, recorder))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def _write_down(process: asyncio.subprocess.Process, recorder: Recorder) -> None:
    assert process.stdout is not None
    decoder = msgspec.json.Decoder(Machine)
    async for line in process.stdout:
        if line.endswith(b"\n"):  # the last line may be incomplete
            seen = decoder.decode(line)
            recorder.write(msgspec.structs.replace(seen, since=recorder.at(seen.since), at=recorder.at(seen.at)))


class CpuTime(NamedTuple):
    """CPU seconds since boot: in total, idle time included; of all processes; and of one process with its children."""

    all: float
    ran: float
    ours: float


def cpu_time(parent: int, proc: Path = Path("/proc")) -> CpuTime:
    """Reads the CPU time. ``parent``: the process to count apart, with its children; ended children count in its own time."""
    columns = [int(column) for column in (proc / "stat").read_text().split("\n", 1)[0].split()[1 : 1 + _COLUMNS]]
    everything = sum(columns)
    ours = 0
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                # The program's name is in parentheses, and may contain any character.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if parent in (int(entry.name), int(fields[1])):
                    ours += sum(map(int, fields[11:15]))
    ticks = os.sysconf("SC_CLK_TCK")
    return CpuTime(everything / ticks, (everything - sum(columns[at] for at in _IDLE)) / ticks, ours / ticks)


def shares(before: CpuTime, now: CpuTime) -> tuple[float, float]:
    """Returns the shares of all CPU time of this harness and of others. Both are from 0 to 1, however coarse the ticks are."""
    everything = max(now.all - before.all, 1e-9)
    ran = min(max(now.ran - before.ran, 0.0) / everything, 1.0)
    ours = min(max(now.ours - before.ours, 0.0) / everything, ran)
    return ours, ran - ours


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(_END_OF_HEAD)
    writer.write(_ANSWER)
    writer.close()


async def _ask(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_REQUEST)
    await reader.read()
    writer.close()


async def _lateness(port: int) -> float:
    """Makes one pause and one request. Returns the seconds by which they took longer than necessary."""
    began, worked = time.monotonic(), time.process_time()
    await asyncio.sleep(_PAUSE)
    await _ask(port)
    return max(time.monotonic() - began - _PAUSE - (time.process_time() - worked), 0.0)


def _work() -> float:
    """Computes for a moment. Returns the seconds that it waited for a core."""
    began, worked = time.monotonic(), time.process_time()
    while time.process_time() - worked < _WORK:
        hashlib.sha256(_BLOCK)
    return time.monotonic() - began - (time.process_time() - worked)


def _sync(file: Path) -> float:
    began = time.monotonic()
    with file.open("wb") as block:
        block.write(_BLOCK)
        block.flush()
        os.fdatasync(block.fileno())
    return time.monotonic() - began


async def watch(file: Path, parent: int, tell: Callable[[Machine], None]) -> None:
    """Reports on the machine once a second, while its parent lives."""
    async with await asyncio.start_server(_serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        before, since = cpu_time(parent), time.monotonic()
        while os.getppid() == parent:
            late = _work()
            while True:
                late = max(late, await _lateness(port))
                if time.monotonic() - since >= _LINE:
                    break
            sync = _sync(file)
            now, at = cpu_time(parent), time.monotonic()
            ours, others = shares(before, now)
            load = round(os.getloadavg()[0], 2)
            tell(Machine(since, at, round(late, 4), round(sync, 4), round(ours, 4), round(others, 4), load))
            before, since = now, at


def _print(seen: Machine) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(watch(Path(sys.argv[1]), os.getppid(), _print))
