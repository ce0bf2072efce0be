"""A disk's identity, kept apart from the disk's records, so that it outlives them.

    <data>/nX/disk.json   {"format": 1, "cluster_id": …, "node": …, "disk": hex, "incarnation": n, "mode": …,
                           "view": {"number": n, "joiner": hex, "disks": {node: hex}} or null}
    <data>/nX/lock        locked (flock) by the one process that owns the directory; empty

A change replaces the file (durable.py), so after a crash the file has either the old identity or the new one, never a mixture.

Rules kept here: disk identity; view and mode are durable.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from quorumvault import durable
from quorumvault.errors import ConfigError, DirectoryInUse, StorageFailed
from quorumvault.model import NODE_NAMES
from quorumvault.ownership import belong_to
from quorumvault.protocol.views import DISK_BYTES, Mode, View

_FORMAT = 1
#: The largest number that every JSON reader keeps exactly.
_MAX_NUMBER = 2**53 - 1
LOCK_FILE = "lock"

_Hex = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * DISK_BYTES}}}\Z")]


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """A disk's owner, mode and view. ``disk`` is its id, DISK_BYTES long; ``incarnation`` counts its starts.

    ``view`` is None until the disk has entered a view. Raises ValueError for parts that do not fit together.
    """

    cluster_id: str
    node: str
    disk: bytes
    incarnation: int
    mode: Mode
    view: View | None

    def __post_init__(self) -> None:
        if self.node not in NODE_NAMES:
            raise ValueError(f"a node is one of {', '.join(NODE_NAMES)}")
        if len(self.disk) != DISK_BYTES:
            raise ValueError(f"a disk id has {DISK_BYTES} bytes")
        if self.mode is Mode.ACTIVE and (self.view is None or self.view.disks.get(self.node) != self.disk):
            raise ValueError(f"an active disk is in a view that lists it as its node's, {self.node}")


class _FormatOnly(msgspec.Struct):
    """Read first, because the other members of the file depend on the format."""

    format: int


class _ViewFile(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=1, le=_MAX_NUMBER)]
    joiner: _Hex
    disks: dict[str, _Hex]


class _IdentityFile(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    cluster_id: Annotated[str, Meta(min_length=1, max_length=128)]
    node: str
    disk: _Hex
    incarnation: Annotated[int, Meta(ge=0, le=_MAX_NUMBER)]
    mode: Mode
    view: _ViewFile | None


def read_identity(path: Path) -> DiskIdentity | None:
    """Read an identity; None if there is no such file. Raises ConfigError, naming the file, unless it has a whole identity."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(path, "", f"expected a readable disk identity: {error.strerror}") from None
    try:
        found = msgspec.json.decode(data, type=_FormatOnly).format
        if found != _FORMAT:
            raise ConfigError(path, "format", f"expected {_FORMAT}, found {found}; run the version that wrote it")
        return _from_file(msgspec.json.decode(data, type=_IdentityFile))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors too, except for text nested too deeply
        raise ConfigError(path, "", f"expected a disk identity of format {_FORMAT}: {error}") from None


def write_identity(path: Path, identity: DiskIdentity) -> None:
    """Replace the identity file. Run as root, the new file belongs to the directory's owner.

    Durable when it returns. Raises StorageFailed, and then the file may have either identity.
    """
    text = msgspec.json.format(msgspec.json.encode(_to_file(identity))) + b"\n"
    try:
        durable.replace(path, text)
    except OSError as error:
        raise StorageFailed(f"{path}: the disk identity cannot be written: {error.strerror}") from None


def raise_incarnation(path: Path, identity: DiskIdentity) -> DiskIdentity:
    """The identity for this start of the disk, with a new incarnation, which is durable before any other node hears of it."""
    started = replace(identity, incarnation=identity.incarnation + 1)
    write_identity(path, started)
    return started


@contextmanager
def lock_data_directory(directory: Path) -> Iterator[None]:
    """Lock a data directory until the block ends, or the process. Raises DirectoryInUse, ConfigError.

    The lock file stays: if it were removed, two processes could lock two files of the same name. It belongs to the directory's
    owner, so that the node can lock it after root did.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(directory / LOCK_FILE, flags, 0o600), "wb")
        belong_to(file.fileno(), directory.stat())
    except OSError as error:
        raise ConfigError(directory, "", f"expected a data directory that can be written to: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUse(
                directory, "", "expected to be the only process on this data directory; another one runs"
            ) from None
        yield


def _from_file(file: _IdentityFile) -> DiskIdentity:
    view = None
    if file.view is not None:
        disks = {node: bytes.fromhex(disk) for node, disk in file.view.disks.items()}
        if disks.keys() != set(NODE_NAMES) or len(set(disks.values())) != len(NODE_NAMES):
            raise ValueError(f"a view lists a different disk for each of {', '.join(NODE_NAMES)}")
        view = View(file.view.number, bytes.fromhex(file.view.joiner), disks)
    return DiskIdentity(file.cluster_id, file.node, bytes.fromhex(file.disk), file.incarnation, file.mode, view)


def _to_file(identity: DiskIdentity) -> _IdentityFile:
    view = None
    if identity.view is not None:
        disks = {node: disk.hex() for node, disk in identity.view.disks.items()}
        view = _ViewFile(identity.view.number, identity.view.joiner.hex(), disks)
    disk, incarnation = identity.disk.hex(), identity.incarnation
    return _IdentityFile(_FORMAT, identity.cluster_id, identity.node, disk, incarnation, identity.mode, view)
