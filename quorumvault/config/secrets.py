"""Secrets: 32 random bytes as 64 hexadecimal digits and a newline. The digits are read into locked memory, and wiped there.

A secret's file has mode 0600. A secret that others can read is refused, as ssh refuses such a key, because a warning would come
too late. A group may read a secret of root's (ownership.py). The open file is checked, not its name, so that no other file can be
swapped in between.
"""

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from quorumvault import durable
from quorumvault.config.process_memory import locked_page
from quorumvault.crypto.keys import SECRET_BYTES, Secret
from quorumvault.errors import ConfigError
from quorumvault.ownership import is_open_to_others

#: No file name can contain a NUL, and Python does not raise an OSError for one.
FilePath = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", description="the path of a file, without a NUL in it")]

_HEX_DIGITS: Final = 2 * SECRET_BYTES
EXPECTED: Final = f"expected {_HEX_DIGITS} hexadecimal digits ({SECRET_BYTES} bytes) and nothing else"
#: Most bytes that are read from the source of a secret.
MOST_TEXT: Final = 4 * _HEX_DIGITS
_SPACES: Final = b" \t\r\n"
_DIGITS: Final = {ord(digit): value for value, digit in enumerate("0123456789abcdef")} | {
    ord(digit): value for value, digit in enumerate("ABCDEF", 10)
}


def read_secret(where: Path, key: str, path: Path, *, patience: float | None = None) -> Secret:
    """The secret in the file ``path``, as named by ``key`` of the file ``where``. Raises ConfigError, without the secret's text.

    With ``patience``, ``path`` may be a pipe, as from ``<(age --decrypt …)``, that ends within so many seconds.
    """
    try:
        with _opened(where, key, path, pipe=patience is not None) as descriptor:
            return read_descriptor(descriptor, patience or 0.0)
    except TimeoutError:
        raise ConfigError(where, key, f"{path}: expected the secret, and then the end, within {patience:g} s") from None
    except ValueError as error:
        raise ConfigError(where, key, f"{path}: {error}") from None


def read_private(where: Path, key: str, path: Path, most: int) -> bytes:
    """The first ``most`` bytes of a file, which no other user may be able to read. Raises ConfigError."""
    with _opened(where, key, path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(most)


def read_descriptor(descriptor: int, patience: float) -> Secret:
    """The secret in an open file, pipe or socket. Raises ValueError if it is not a secret, TimeoutError, OSError."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return decoded(lambda room: _read_file(descriptor, room))
    deadline = time.monotonic() + patience
    return decoded(lambda room: _read_stream(descriptor, room, deadline))


@contextmanager
def _opened(where: Path, key: str, path: Path, *, pipe: bool = False) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe without a writer would block
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(None, "Is a directory")
            if not stat.S_ISREG(found.st_mode) and not (pipe and stat.S_ISFIFO(found.st_mode)):
                raise ConfigError(where, key, f"{path}: expected a file")
            require_private(where, key, str(path), found)
            yield descriptor
        finally:
            os.close(descriptor)
    except TimeoutError:
        raise
    except OSError as error:
        raise ConfigError(where, key, f"{path}: expected a readable secret file: {error.strerror}") from None


def require_private(where: Path, key: str, what: str, found: os.stat_result) -> None:
    """Raises ConfigError if others can read this file. Others cannot open a file without a name, or what is not a file."""
    if stat.S_ISREG(found.st_mode) and found.st_nlink and is_open_to_others(found):
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(where, key, f"{what}: expected mode 0600, not {mode:04o} (others could read it); chmod 600 it")


def _read_file(descriptor: int, room: memoryview) -> int:
    """Fill ``room`` from the beginning of a file. Returns the number of bytes. Keeps the descriptor's position."""
    size = 0
    while size < len(room) and (count := os.preadv(descriptor, [room[size:]], size)):
        size += count
    return size


def _read_stream(descriptor: int, room: memoryview, deadline: float) -> int:
    """Fill ``room`` from a pipe or a socket, to its end. Returns the number of bytes.

    Raises TimeoutError if the end does not come before ``deadline``, by the monotonic clock; OSError.
    """
    poll, size = select.poll(), 0
    poll.register(descriptor, select.POLLIN)
    while size < len(room):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        count = os.readv(descriptor, [room[size:]])
        if not count:
            break
        size += count
    return size


def decoded(fill: Callable[[memoryview], int]) -> Secret:
    """Return the secret whose digits ``fill`` puts into the given memory of MOST_TEXT bytes; ``fill`` returns their number.

    No Python object ever holds the digits. Raises ValueError, whose text has none of them.
    """
    page = locked_page("the master secret")
    text, secret = page[:MOST_TEXT], page[MOST_TEXT : MOST_TEXT + SECRET_BYTES]
    try:
        _decode(text[: fill(text)], secret)
    finally:
        text[:] = bytes(len(text))
    return secret.toreadonly()


def _decode(text: memoryview, secret: memoryview) -> None:
    if len(text) == MOST_TEXT:
        raise ValueError(f"{EXPECTED}, not {MOST_TEXT} bytes or more")
    while text and text[-1] in _SPACES:
        text = text[:-1]
    while text and text[0] in _SPACES:
        text = text[1:]
    if len(text) != _HEX_DIGITS:
        raise ValueError(f"{EXPECTED}, not {len(text)} characters")
    for at in range(SECRET_BYTES):
        high, low = _DIGITS.get(text[2 * at]), _DIGITS.get(text[2 * at + 1])
        if high is None or low is None:
            raise ValueError(EXPECTED)
        secret[at] = high << 4 | low


def is_hexadecimal(text: str) -> bool:
    """True if the text is written as a secret is."""
    return len(text) == _HEX_DIGITS and all(ord(digit) in _DIGITS for digit in text)


def write_secret(path: Path, secret: Secret) -> None:
    """Write a new secret file of mode 0600, synced. Raises FileExistsError if there is one: a secret is never overwritten."""
    durable.create(path, f"{secret.hex()}\n".encode())
