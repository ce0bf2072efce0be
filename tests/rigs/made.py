"""The directory of a cluster, as ``init`` makes it, and records, as nodes seal them."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from quorumvault.config.addresses import plan_nodes
from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import records
from quorumvault.server.offline.init import init
from quorumvault.server.storage import layout

CLINIC = Owner("clinic")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(directory: Path, owners: Sequence[Owner] = (CLINIC,), hosts: Sequence[str] = ("127.0.0.1",)) -> Path:
    """Makes a cluster with ports from 9000 on. Returns its directory."""
    init(directory, plan_nodes(list(hosts), 9000), owners, now=NOW, entropy=os.urandom)
    return directory


def sealed(
    keyring: Keyring, owner: Owner, text: str, epoch: int = 1, clock: int = 1 << 16, writer: int = 1
) -> dict[bytes, bytes]:
    """One record: its key in a store, and its value."""
    keys = keyring.epoch_keys(owner, epoch)
    value = [canonical.from_str(text)]
    digests = keys.digests(value)
    (key,) = layout.record_keys(owner.id, [epoch], digests)
    return {key: records.header(Version(clock, writer)) + keys.sealer.seal(value, digests)[0]}


def files(directory: Path) -> dict[str, bytes]:
    """The contents of all files in a directory, by their path in it."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def flip(record: bytes, at: int = -1) -> bytes:
    """The record with one bit of this byte changed."""
    changed = bytearray(record)
    changed[at] ^= 1
    return bytes(changed)
