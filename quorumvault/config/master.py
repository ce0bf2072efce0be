"""The source of the master secret: a file, a descriptor that the process was started with, or the output of a command.

    secrets.master.file         mode 0600; {credentials}/NAME: from the credential directory (credentials.py)
    secrets.master.descriptor   a file, pipe or socket that the parent process has opened; read once, and closed
    secrets.master.command      asks an organisation's KMS, age or Vault, whose interface this program need not know
                                (secret_command.py)

The secret is read once, at the start. With another secret nothing in the store could be read, so it is never reloaded.
"""

import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from quorumvault.config.credentials import located
from quorumvault.config.secret_command import Argument, output_of
from quorumvault.config.secrets import FilePath, decoded, is_hexadecimal, read_descriptor, read_secret, require_private
from quorumvault.config.tampering import guarded
from quorumvault.crypto.keys import Secret
from quorumvault.errors import ConfigError, Unavailable

SecretId = Annotated[str, Meta(pattern=r"\A[a-z0-9]{1,16}\Z", description="1 to 16 lower case letters and digits")]
#: The process writes to 1 and 2; no process is given thousands of descriptors.
_Descriptor = Annotated[int, Meta(ge=0, le=1023)]
_Command = Annotated[tuple[Argument, ...], Meta(min_length=1, max_length=64)]
File = Annotated[FilePath | None, Meta(description="the path of a file, without a NUL in it")]
Descriptor = Annotated[_Descriptor | None, Meta(description="a file descriptor: 0, or a whole number from 3 to 1023")]
Command = Annotated[_Command | None, Meta(description="a list of 1 to 64 texts without a NUL: a program and its arguments")]
_SOURCES = ("file", "descriptor", "command")


class MasterSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id under which epochs remember the secret, and the secret's only source."""

    id: SecretId
    file: File = None
    descriptor: Descriptor = None
    command: Command = None

    @property
    def source(self) -> str:
        """The key of cluster.yaml that says where the secret comes from."""
        return f"secrets.master.{next(name for name in _SOURCES if getattr(self, name) is not None)}"

    def require_one_source(self, where: Path) -> None:
        """Raises ConfigError unless exactly one source is set."""
        named = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(named) != 1:
            raise ConfigError(
                where, "secrets.master", f"expected one of {', '.join(_SOURCES)}, not {' and '.join(named) or 'none'}"
            )
        if self.file is not None and is_hexadecimal(self.file):
            raise ConfigError(
                where, "secrets.master.file", "expected the path of a file, not the secret itself: others may have read it"
            )
        if self.descriptor in (1, 2):
            raise ConfigError(
                where, "secrets.master.descriptor", "expected 0, or 3 and more: 1 and 2 are what the node writes to"
            )

    def place(self, where: Path) -> str:
        """The source in words, for a person: the file, or the other source. ``where`` is cluster.yaml."""
        return str(where.parent / self.file) if self.file is not None else f"{where}: {self.source}"


def read_master(where: Path, master: MasterSecret, patience: float) -> Secret:
    """Return the secret of the cluster.yaml ``where``. A command, or the writer to a descriptor, has ``patience`` seconds.

    Raises ConfigError; Unavailable if a later attempt may succeed.
    """
    if master.file is not None:
        return read_secret(where, master.source, located(where, master.source, master.file))
    if master.descriptor is not None:
        return _from_descriptor(where, master.source, master.descriptor, patience)
    assert master.command is not None
    guarded(where)  # a user who may change this file decides which command runs, and as which user
    try:
        return decoded(lambda room: output_of(where, master.source, master.command or (), room, patience))
    except ValueError as error:
        raise ConfigError(where, master.source, f"{error}, in what it prints") from None


def _from_descriptor(where: Path, key: str, descriptor: int, patience: float) -> Secret:
    what = f"descriptor {descriptor}"
    try:
        found = os.fstat(descriptor)
        # What Python opens is closed in other programs: this one would be of our own, and none that we were given.
        if not os.get_inheritable(descriptor):
            raise ConfigError(where, key, f"{what}: expected one that this process was started with; it is not")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)):
            raise ConfigError(where, key, f"{what}: expected a file, a pipe or a socket")
        require_private(where, key, what, found)
        secret = read_descriptor(descriptor, patience)
        _give_up(descriptor)
    except TimeoutError:
        late = f"{what}: expected the secret, and then the end, within {patience:g} s"
        raise Unavailable(where, key, late) from None
    except OSError as error:
        raise ConfigError(where, key, f"{what}: expected one that is open for reading: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(where, key, f"{what}: {error}") from None
    return secret


def _give_up(descriptor: int) -> None:
    """Nothing that this process starts gets it. Standard input stays open, for else the next file would become it."""
    if descriptor:
        os.close(descriptor)
        return
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, descriptor)
    os.close(nothing)
