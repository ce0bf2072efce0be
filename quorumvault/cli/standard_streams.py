"""Makes the standard streams of a command's process safe, in whatever state they are: closed, full, non-blocking, or without a
reader.

    closed           The next file that is opened would get the descriptor's number, and messages would be written into that
                     file. So this module occupies the number first. Reading or writing the stream then raises HandleError
    full, damaged    Standard output raises HandleError, once. Standard error only informs, so its text is lost
    reader is gone   ``… | head``: the process ends silently, like a process that SIGPIPE ends
    non-blocking     The process waits for the stream
    ASCII            The encoding becomes UTF-8. Characters that another encoding lacks are escaped as in JSON, which stays JSON
"""

import codecs
import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import Any, Final

import click

#: 128 + SIGPIPE: the shell's exit code of a process whose reader is gone.
READER_GONE: Final = 141
#: The most symbolic links to follow in one path, as in Linux (path_resolution(7)).
_MOST_LINKS: Final = 40
ESCAPES: Final = "quorumvault-escapes"


class HandleError(click.ClickException):
    """A stream or a path of the command cannot be read or written."""


def take_over() -> None:
    """Replaces the streams that Python made. Call it before anything opens a file."""
    was_closed = [_take_if_closed(number) for number in range(3)]
    register_escapes()
    sys.stdin = io.TextIOWrapper(io.BufferedReader(Input(0, was_closed[0])), _encoding(sys.stdin), errors="surrogateescape")
    out, words = io.BufferedWriter(Output(1, was_closed[1])), io.BufferedWriter(Words(2, "wb", closefd=False))
    sys.stdout = io.TextIOWrapper(out, _encoding(sys.stdout), errors=ESCAPES, line_buffering=os.isatty(1))
    sys.stderr = io.TextIOWrapper(words, _encoding(sys.stderr), errors=ESCAPES, line_buffering=True)


def descriptor_of(path: Path) -> int | None:
    """Returns the descriptor that a path names, such as 1 for /dev/stdout; None for any other path."""
    folder, place = os.path.realpath("/dev/fd"), os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        place = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        if os.path.dirname(place) == folder and os.path.basename(place).isdigit():
            return int(os.path.basename(place))
        if not os.path.islink(place):
            return None
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    return None


def is_standard_output(file: Path | int) -> bool:
    """Returns whether ``file``, a path or a descriptor, is the regular file that standard output goes to."""
    return _is_behind(1, file)


def is_standard_stream(path: Path) -> bool:
    """Returns whether ``path`` is the regular file behind standard input or standard output."""
    return any(_is_behind(number, path) for number in (0, 1))


def _is_behind(number: int, file: Path | int) -> bool:
    try:
        return os.path.isfile(number) and os.path.samestat(os.stat(file), os.fstat(number))
    except OSError:
        return False


def _take_if_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # not inherited: only this process knows that the descriptor is a placeholder
        return True
    return False


def _encoding(stream: Any) -> str:
    encoding = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name
    return "utf-8" if encoding == "ascii" else encoding


def register_escapes() -> None:
    """Makes ESCAPES known to Python's codecs."""
    codecs.register_error(ESCAPES, _escaped)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4)), error.end


def _failed(stream: str, error: OSError) -> HandleError:
    return HandleError(f"standard {stream}: {error.strerror or type(error).__name__}")


class Input(io.FileIO):
    """Standard input."""

    def __init__(self, descriptor: int, was_closed: bool = False) -> None:
        super().__init__(descriptor, "rb", closefd=False)
        self._was_closed = was_closed

    def readinto(self, buffer: Any) -> int:
        try:
            if self._was_closed:
                raise OSError(errno.EBADF, "it is closed")
            while (count := super().readinto(buffer)) is None:
                select.select([self], [], [])
        except OSError as error:
            raise _failed("input", error) from None
        return count


class Output(io.FileIO):
    """Standard output. After a failed write the process ends, and what it flushes then is discarded."""

    def __init__(self, descriptor: int, was_closed: bool = False) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._was_closed = was_closed
        self._has_failed = False

    def write(self, data: Any) -> int:
        if self._has_failed:
            return len(data)
        try:
            if self._was_closed:
                raise OSError(errno.EBADF, "it is closed")
            return _write(super(), data)
        except OSError as error:
            self._has_failed = True
            if error.errno == errno.EPIPE:
                raise click.exceptions.Exit(READER_GONE) from None
            raise _failed("output", error) from None


class Words(io.FileIO):
    """Standard error. Failed writes are ignored, since they do not affect the work."""

    def write(self, data: Any) -> int:
        try:
            return _write(super(), data)
        except OSError:
            return len(data)


def _write(file: Any, data: Any) -> int:
    """Writes to a file, which may be non-blocking."""
    while (count := file.write(data)) is None:
        select.select([], [file.fileno()], [])
    return int(count)
