"""Ends a command that works on files early: by a signal, by a mistake in its arguments, or for want of a package."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import click

from quorumvault.cli.output import say, visible
from quorumvault.errors import ColumnError
from quorumvault.files.job import Job
from quorumvault.files.lakes import LakeError
from quorumvault.files.outputs import OutputExists
from quorumvault.files.sources import InputsError
from quorumvault.files.work_folder import RunRefused, work_path

#: Packages of the analytics extra.
_EXTRA = ("duckdb", "numpy", "pyarrow")


@contextlib.contextmanager
def interruptible(job: Job | None = None) -> Iterator[None]:
    """In the block SIGTERM is like Ctrl-C: it raises KeyboardInterrupt. After an error tells what the run of ``job`` has left.

    Raises Abort if the block was interrupted, UsageError for a mistake in the command's arguments.
    """
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    with _handling(interrupt):
        try:
            yield
        except (InputsError, LakeError, OutputExists, ColumnError) as error:
            raise click.UsageError(visible(str(error))) from None
        except ModuleNotFoundError as error:
            if error.name not in _EXTRA:
                raise
            raise click.ClickException(f"Parquet and DuckDB need {error.name}: pip install 'quorumvault[analytics]'") from None
        except BaseException as error:
            # DuckDB makes an error of its own of an interrupt.
            if job is not None and not isinstance(error, RunRefused) and work_path(job).is_dir():
                say(
                    f"Finished parts are kept in {work_path(job)}: the same command with --resume goes on, --force begins again.",
                    err=True,
                )
            if interrupted:
                raise click.Abort from None
            raise


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], NoReturn]) -> Iterator[None]:
    """Set the handler of SIGINT and SIGTERM for the block. Does nothing outside of the main thread, which alone may set one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
