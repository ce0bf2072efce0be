"""The credential directory: files that a service manager gives to one process alone (systemd: ``LoadCredential=``).

A path in cluster.yaml that begins with ``{credentials}/`` names a file in this directory. systemd decrypts the files, keeps them
in memory that is not swapped, and names the directory in an environment variable.
"""

import os
from pathlib import Path
from typing import Final

from quorumvault.errors import ConfigError

#: In a path: the directory that VARIABLE names.
PLACE: Final = "{credentials}"
VARIABLE: Final = "CREDENTIALS_DIRECTORY"


def is_credential(file: str) -> bool:
    """True for a path in a host's own credential directory, which is not carried from one host to another."""
    return file.startswith(f"{PLACE}/")


def located(where: Path, key: str, file: str) -> Path:
    """Return the path of ``file``, as ``key`` of the cluster.yaml ``where`` names it. Raises ConfigError if there is no place."""
    if not is_credential(file):
        return where.parent / file
    directory = os.environ.get(VARIABLE, "")
    if not directory.startswith("/"):
        raise ConfigError(
            where,
            key,
            f"expected ${VARIABLE} to name the directory that {PLACE} stands for: it is for a process to which a service manager "
            "gives credentials (systemd: LoadCredential=), and this one has none",
        )
    return Path(directory) / file.removeprefix(f"{PLACE}/")
