"""The administrative socket, <data>/nX/admin.sock: a Unix socket for its owner only (mode 0600), not on the network.

The address of a Unix socket has at most 107 bytes (unix(7)), and the path of a data directory may be longer. So both ends open
the socket through a descriptor of the directory: /proc/self/fd/N/admin.sock is short and, on Linux, the same file.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quorumvault.errors import ConfigError

FILE_NAME = "admin.sock"


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """Yield a short name of the socket in ``directory``, valid in this process until the block ends. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{FILE_NAME}"
    finally:
        os.close(descriptor)


def listen(directory: Path) -> socket.socket:
    """Return a listening socket in ``directory``, which this process has locked. Raises ConfigError.

    Removes a socket that is there already: a process that has ended left it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before the file exists, so that it never has another mode
        with short_path(directory) as path:
            remove(directory)
            listener.bind(path)
        listener.listen()  # from now on a client can connect, and waits until the node answers
    except OSError as error:
        listener.close()
        raise ConfigError(directory / FILE_NAME, "", f"expected to make a socket here: {error.strerror}") from None
    return listener


def remove(directory: Path) -> None:
    (directory / FILE_NAME).unlink(missing_ok=True)
