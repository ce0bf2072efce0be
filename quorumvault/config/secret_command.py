"""Runs the command that prints a secret. Its time and its output are bounded, and its output is never shown.

The command gets no terminal, no descriptor of this process, and no environment variable meant for this process only, such as API
keys and a service manager's variables. It gets the rest of the environment, because KMS clients find their service there. It
leads a process group, and when it has ended, the whole group has ended.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

from msgspec import Meta

from quorumvault.config.tampering import guarded
from quorumvault.errors import ConfigError, Unavailable

Argument = Annotated[str, Meta(max_length=4096, pattern=r"\A[^\x00]*\Z")]

#: Signals that end a process by default, sent by an operator or by a closing terminal.
_FATAL: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Variables that the command does not get.
_OURS: Final = re.compile(r"QUORUMVAULT_|NOTIFY_SOCKET\Z|WATCHDOG_|LISTEN_|MAINPID\Z")
#: Most bytes of a command's error output that are kept, and most characters of it that are shown.
_MOST_KEPT: Final = 4096
_MOST_SHOWN: Final = 200
#: Seconds between two checks whether the command has ended: its pipes stay open if a process that it left behind has them too.
_TICK_SECONDS: Final = 0.05
#: A word as people write it, in contrast to secrets, which are written with digits, capitals or only hexadecimal letters.
_WORD: Final = re.compile(r"""['"(]*(?![a-fA-F]{2,}\W*\Z)[A-Z]?[a-z]{1,20}['")\].,:;!?]*""")


def output_of(where: Path, key: str, command: Sequence[str], room: memoryview, patience: float) -> int:
    """Put the command's output into ``room``, and return its size in bytes. Once ``room`` is full, this waits for no more.

    The command, set by ``key`` of the cluster.yaml ``where``, runs in that file's directory. Raises ConfigError if it cannot be
    run, and Unavailable if it fails or does not end within ``patience`` seconds.
    """
    program = _program(where, key, command[0])
    said = bytearray()
    with _started(where, key, [str(program), *command[1:]]) as process:
        size, ended = _read(process, room, said, time.monotonic() + patience)
    if size == len(room):
        return size
    if not ended:
        raise Unavailable(where, key, f"{program} did not end within {patience:g} s and was killed{_shown(said)}")
    code = process.returncode
    if code:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise Unavailable(where, key, f"{program} {how}{_shown(said)}")
    return size


def _program(where: Path, key: str, name: str) -> Path:
    found = where.parent / name if "/" in name else shutil.which(name)
    if found is None:
        raise ConfigError(where, key, f"{name}: expected a program; there is none of this name in PATH")
    try:
        return guarded(Path(found))
    except ConfigError as error:
        raise ConfigError(where, key, str(error)) from None


@contextmanager
def _started(where: Path, key: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    variables = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    with _ending_with_us() as ending:
        try:
            process = subprocess.Popen(  # noqa: S603 - what the operator named, without a shell
                command,
                cwd=where.parent,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,
            )
        except OSError as error:
            raise ConfigError(where, key, f"{command[0]}: expected a program that can be run: {error.strerror}") from None
        with process:
            try:
                ending(process)
                yield process
            finally:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole process group, before the process is waited for: until then no other group can have its number."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _ending_with_us() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Let a signal that would end only this process end both this process and the one that the block says it has started.

    A signal that comes during the start waits until the process has started. Only the main thread can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda process: None
        return
    started, asked = list[subprocess.Popen[bytes]](), list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if started:
            _kill(started[0])
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def start(process: subprocess.Popen[bytes]) -> None:
        started.append(process)
        if asked:
            end(asked[0], None)

    fatal = [number for number in _FATAL if signal.getsignal(number) == signal.SIG_DFL]
    for number in fatal:
        signal.signal(number, end)
    try:
        yield start
    finally:
        for number in fatal:
            signal.signal(number, signal.SIG_DFL)


def _read(process: subprocess.Popen[bytes], room: memoryview, said: bytearray, deadline: float) -> tuple[int, bool]:
    """Fill ``room`` with the process's output, and ``said`` with its error output, until it ends.

    Returns the size of the output, and whether the process has ended. It has not if ``room`` is full or the time is up.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    printed, spoken = process.stdout.fileno(), process.stderr.fileno()
    poll, size = select.poll(), 0
    for descriptor in (printed, spoken):
        poll.register(descriptor, select.POLLIN)
    while size < len(room):
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        ready = [descriptor for descriptor, _ in poll.poll(0 if ended else _TICK_SECONDS * 1000)]
        if not ready and ended:
            return size, True
        if time.monotonic() > deadline:
            return size, False
        for descriptor in ready:
            if descriptor == printed:
                count = os.readv(descriptor, [room[size:]])
                size += count
            else:
                piece = os.read(descriptor, _MOST_KEPT)
                said += piece[: _MOST_KEPT - len(said)]
                count = len(piece)
            if not count:
                poll.unregister(descriptor)
    return size, False


def _shown(said: bytearray) -> str:
    """A command's error output, without anything that could be a secret, which the command may have printed by mistake."""
    words = [word if _WORD.fullmatch(word) else "…" for word in said.decode(errors="replace").split()]
    shown = re.sub(r"…( …)+", "…", " ".join(words))
    return f": {shown[:_MOST_SHOWN]}" if any(word != "…" for word in words) else ""
