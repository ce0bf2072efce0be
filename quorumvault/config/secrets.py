"""Files that hold a secret: 32 random bytes as 64 hexadecimal digits and a newline, mode 0600.

A secret that others can read is refused, as ssh refuses such a key: a warning would be read after the fact. A group may read one
of root's (ownership.py).
What is checked is the open file and not its name, so nothing can be swapped in between.
"""

import os
import stat
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from quorumvault import durable
from quorumvault.crypto.keys import SECRET_BYTES
from quorumvault.errors import ConfigError
from quorumvault.ownership import is_open_to_others

#: No file can have a NUL in its name, and Python raises something else than OSError for one.
FilePath = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", description="the path of a file, without a NUL in it")]

_HEX_DIGITS = 2 * SECRET_BYTES
_EXPECTED = f"expected {_HEX_DIGITS} hexadecimal digits ({SECRET_BYTES} bytes) and nothing else"


def read_secret(where: Path, key: str, path: Path) -> bytes:
    """The SECRET_BYTES bytes in ``path``, as named by ``key`` of the file ``where``. Raises ConfigError, with no text of it."""
    text = read_private(where, key, path, 4 * _HEX_DIGITS)
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:  # UnicodeDecodeError too: its message would show a byte
        raise ConfigError(where, key, f"{path}: {_EXPECTED}") from None
    if len(secret) != SECRET_BYTES:
        raise ConfigError(where, key, f"{path}: {_EXPECTED}, not {len(secret)} bytes")
    return secret


def read_private(where: Path, key: str, path: Path, most: int) -> bytes:
    """The first ``most`` bytes of a file that nobody else can read. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(where, key, f"{path}: expected a file")
            if is_open_to_others(found):
                mode = stat.S_IMODE(found.st_mode)
                raise ConfigError(where, key, f"{path}: expected mode 0600, not {mode:04o} (others could read it); chmod 600 it")
            return file.read(most)
    except OSError as error:
        raise ConfigError(where, key, f"{path}: expected a readable secret file: {error.strerror}") from None


def write_secret(path: Path, secret: bytes) -> None:
    """Write a new secret file of mode 0600, synced. Raises FileExistsError if there is one: a secret is never overwritten."""
    durable.create(path, f"{secret.hex()}\n".encode())
