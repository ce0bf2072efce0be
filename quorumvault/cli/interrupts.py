"""Ends a command over files early: on a signal, on a mistake in its arguments, or because a package is missing.

    first signal        KeyboardInterrupt in the main thread, wherever it is. The run saves its finished parts, and says so
    GRACE later         the process ends, whatever it is doing: a node may be silent, a library may be writing a large file
    second signal       the process ends at once

In each case no values stay on disk. Finished parts stay, for --resume.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import click

from quorumvault.cli.main import BY_SIGNAL, Interrupted
from quorumvault.cli.output import say, visible
from quorumvault.durable import abandon_drafts
from quorumvault.errors import ColumnError
from quorumvault.files.job import Job, RunError
from quorumvault.files.lakes import LakeError
from quorumvault.files.outputs import OutputExists
from quorumvault.files.sources import InputsError
from quorumvault.files.work_folder import Kept, RunRefused, cut_off, kept

#: Seconds that a run has to end by itself, so that after Ctrl-C the prompt is back within one second.
GRACE: Final = 0.7
#: Packages of the extras: what needs each package, and the extra that has it.
_NEEDED_BY = {
    **dict.fromkeys(("duckdb", "numpy", "pyarrow"), ("Parquet and DuckDB", "analytics")),
    **dict.fromkeys(("fsspec", "aiohttp", "s3fs", "gcsfs", "adlfs"), ("URLs of this kind", "cloud")),
}
#: Signals from Ctrl-C, from a service manager, and from a closed terminal.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR: Final = "\x1b[?25h"


@contextlib.contextmanager
def interruptible(job: Job | None = None) -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C in the block, and SIGHUP too unless nohup ignores it. After an error or a signal, prints what
    the run of ``job`` has left.

    Raises Interrupted if a signal ended the block, UsageError for a mistake in the command's arguments.
    """
    end = _End(job)
    with end.watched():
        try:
            yield
        except (InputsError, LakeError, OutputExists, ColumnError) as error:
            if job is not None:
                end.tell(lambda: _left(job))
            raise click.UsageError(visible(str(error))) from None
        except ModuleNotFoundError as error:
            if error.name not in _NEEDED_BY:
                raise
            what, extra = _NEEDED_BY[error.name]
            raise click.ClickException(f"{what} need {error.name}: pip install 'quorumvault[{extra}]'") from None
        except BaseException as error:
            if job is not None and not isinstance(error, RunRefused):
                end.tell(lambda: _left(job))
            # DuckDB turns an interrupt into an error of its own.
            if end.number is not None:
                raise Interrupted(end.number) from None
            raise


def _left(job: Job) -> Kept | None:
    with contextlib.suppress(RunError, OSError):
        return kept(job)
    return None


class _End:
    """Watches for the end of one block. ``number`` is the number of the signal that came, None before."""

    def __init__(self, job: Job | None) -> None:
        self.number: int | None = None
        self._job = job
        self._telling = threading.Lock()
        self._has_ended = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches for signals in the block. Does nothing outside the main thread, since only that may handle signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard, tells = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Python runs signal handlers only between its own instructions; the wake-up byte arrives even while a library works.
        numbers = [each for each in _SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._interrupt) for number in numbers}
        wakes = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(heard,), daemon=True).start()
        try:
            yield
        finally:
            self._has_ended = True
            if self.number is None:  # else the watch goes on until the process ends, which may take long
                for number, previous in before.items():
                    signal.signal(number, previous)
                signal.set_wakeup_fd(wakes)
                os.close(tells)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            raise KeyboardInterrupt

    def _watch(self, heard: int) -> None:
        """Ends the process GRACE seconds after the first signal, or at the second one."""
        first = _next(heard, None)
        if first is not None:
            _next(heard, GRACE)  # the main thread may not have seen the first signal yet
            self._end_now(first)
        os.close(heard)

    def _end_now(self, number: int) -> None:
        job, self.number = self._job, number
        abandon_drafts()
        if job is not None:
            left = cut_off(job)
            self.tell(lambda: left)
        if not self._has_ended:  # else main.py prints it
            say("quorumvault: interrupted", err=True)
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR.encode())  # a progress bar may have hidden the cursor
        os._exit(BY_SIGNAL + number)

    def tell(self, find: Callable[[], Kept | None]) -> None:
        """Prints once what is left of the run; after an error, only if something is left."""
        if not self._telling.acquire(blocking=False):
            return
        left = find()
        if left is not None:
            say(_words(left), err=True)
        elif self.number is not None:
            say("Nothing was finished, and nothing is kept: the same command begins anew.", err=True)


def _words(left: Kept) -> str:
    if left.is_made:
        return f"All is made and kept in {left.folder}: the same command with --resume gives it its names."
    figures = f"{left.parts:,} part{'s' if left.parts > 1 else ''}, {left.rows:,} rows"
    return f"Finished parts are kept in {left.folder} ({figures}): the same command with --resume goes on, --force begins again."


def _next(heard: int, seconds: float | None) -> int | None:
    """Returns the number of the next signal that ends a command; None if none came in ``seconds``, or the watch is over."""
    while select.select([heard], [], [], seconds)[0]:
        number = os.read(heard, 1)
        if not number or number[0] in _SIGNALS:
            return number[0] if number else None
    return None
