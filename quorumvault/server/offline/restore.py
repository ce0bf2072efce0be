"""Make a new cluster from a backup: new ids, new disks in view 1, and every record of the backup on all three disks.

    DIR/cluster.yaml   a new one, under a new cluster id      fields.yaml, api_keys.yaml: as given
    DIR/secrets/       the master secret that the backup needs; a new secret between nodes
    DIR/n1/ n2/ n3/    three new disks, active, with the same content

    verify    the whole backup, before anything is made: its checksums, its counts, its seal, and every record with its own key
    write     the whole backup to each disk
    compare   every disk, opened anew, with the backup, record by record

If nodes of the old cluster come back, the new nodes see them as another cluster's. The new directory is complete, or does not
exist (init.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from quorumvault import durable
from quorumvault.config.addresses import Endpoints
from quorumvault.config.api_keys import load_keys
from quorumvault.config.fields import load_fields
from quorumvault.config.secrets import read_secret
from quorumvault.crypto.keys import Keyring, Secret, backup_key, fingerprint
from quorumvault.errors import BackupDamaged, ConfigError, Refused, StorageFailed
from quorumvault.formats.yaml import read_yaml
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.server.backup.audit import Audit, Unfit
from quorumvault.server.backup.format import Counts, Header, Piece, Reader, is_sealed
from quorumvault.server.offline import certificates, init
from quorumvault.server.offline.unite import Tell
from quorumvault.server.replica.copy import stored_pairs
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import IDENTITY_FILE, STORE_DIRECTORY
from quorumvault.server.storage.disk_identity import read_identity
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.store import Store, write_all

#: Seconds for a person who decrypts the secret into a pipe, and may have to type a password.
_SECRET_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Given:
    """The files that a backup does not contain. If ``api_keys`` is None, each owner gets a new key."""

    master_secret: Path
    fields: Path
    api_keys: Path | None


@dataclass(frozen=True, slots=True)
class Restored:
    """``api_keys``: those that were made, by owner, shown once and stored nowhere. ``keyless``: owners that have none."""

    cluster_file: Path
    nodes: Mapping[str, Endpoints]
    header: Header
    counts: Counts
    api_keys: Mapping[str, str] = field(repr=False)
    keyless: list[str]


def restore(
    file: Path,
    directory: Path,
    nodes: Mapping[str, Endpoints],
    given: Given,
    *,
    now: datetime,
    entropy: Callable[[int], bytes],
    tell: Tell,
) -> Restored:
    """Make a cluster in ``directory``, which may be missing but has to be empty, out of the backup in ``file``.

    Raises BackupDamaged; Refused for another master secret, or if there is something in ``directory``; ConfigError for a file
    that cannot be used; StorageFailed if a disk does not keep what is written to it.
    """
    load_fields(given.fields)
    keyed = None if given.api_keys is None else load_keys(given.api_keys).owners
    tell("verifying the backup, record by record")
    backup = _Backup.verified(file, given.master_secret)
    owners = sorted(backup.owners, key=lambda owner: owner.name)
    directory, cluster_id = directory.absolute(), init.new_cluster_id(entropy)
    with init.new_cluster(directory, init.cluster_yaml(cluster_id, nodes, backup.header.secret)) as cluster_file:
        init.write_secrets(directory, backup.secret, backup.header.secret)
        certificates.create(directory, cluster_id, nodes, now)
        init.write_new(directory / init.FIELDS_FILE, read_yaml(given.fields))
        keys: dict[str, str] = {}
        if given.api_keys is None:
            keys = init.write_keys(directory / init.KEYS_FILE, owners, now, entropy, note="made by restore")
        else:
            durable.create(directory / init.KEYS_FILE, read_yaml(given.api_keys).encode())

        def fill(node: str, store: Store) -> None:
            tell(f"{node}: gets {backup.counts.records:,} records")
            store.write({layout.secret_key(backup.header.secret): backup.header.fingerprint.encode()})
            write_all(store, backup.pairs())

        init.make_disks(directory, cluster_id, entropy, fill)
        for node in NODE_NAMES:
            tell(f"{node}: compared with the backup, record by record")
            _compare(directory / node, backup)
    keyless = [] if keyed is None else [owner.name for owner in owners if owner not in keyed]
    return Restored(cluster_file, nodes, backup.header, backup.counts, keys, keyless)


@dataclass(frozen=True, slots=True)
class _Backup:
    """A file that was read to its end and found to be in order. ``digest``: of all of it."""

    file: Path
    header: Header
    counts: Counts
    owners: frozenset[Owner]
    digest: bytes
    secret: Secret = field(repr=False)

    @classmethod
    def verified(cls, file: Path, secret_file: Path) -> _Backup:
        """Raises BackupDamaged, Refused, ConfigError."""
        with _opened(file) as source:
            reader = Reader(source, file)
            secret = _secret_for(reader.header, file, secret_file)
            audit = Audit(Keyring(reader.header.secret, secret))
            frame = reader.next()
            while isinstance(frame.message, Piece):
                try:
                    audit.look(frame.message.keys, frame.message.values)
                except Unfit as unfit:
                    raise BackupDamaged(f"{file}: in the piece at byte {frame.offset:,}: {unfit}") from None
                frame = reader.next()
        trailer = frame.message
        if not is_sealed(backup_key(secret), trailer.seal, frame.before):
            raise BackupDamaged(f"{file}: its seal does not fit: it was changed by somebody without the master secret")
        if trailer.counts != audit.counts:
            raise BackupDamaged(f"{file}: expected {trailer.counts}, as it says at its end, and found {audit.counts}")
        return cls(file, reader.header, audit.counts, frozenset(audit.owners.values()), frame.digest, secret)

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """All pairs, in the order of keys. Raises BackupDamaged if they are not what was verified."""
        with _opened(self.file) as source:
            reader = Reader(source, self.file)
            while isinstance((frame := reader.next()).message, Piece):
                yield from zip(frame.message.keys, frame.message.values, strict=True)
        if frame.digest != self.digest:
            raise BackupDamaged(f"{self.file}: it was changed while it was restored")


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise ConfigError(file, "", f"expected a backup that can be read: {error.strerror}") from None


def _secret_for(header: Header, file: Path, secret_file: Path) -> Secret:
    secret = read_secret(file, "its master secret", secret_file, patience=_SECRET_SECONDS)
    found = fingerprint(secret)
    if found != header.fingerprint:
        raise Refused(
            f"{secret_file}: this is another master secret ({found}) than the one with which the values in {file} were sealed: "
            f"{header.secret!r}, {header.fingerprint}"
        )
    return secret


def _compare(place: Path, backup: _Backup) -> None:
    """Compare everything on the disk in this data directory with everything in the backup."""
    identity = read_identity(place / IDENTITY_FILE)
    if identity is None:
        raise StorageFailed(f"{place / IDENTITY_FILE}: it is gone again")
    with closing(LevelDBStore.open(place / STORE_DIRECTORY, identity.disk)) as store:
        for number, (written, kept) in enumerate(zip_longest(backup.pairs(), stored_pairs(store)), 1):
            if written != kept:
                raise StorageFailed(
                    f"{place}: the disk does not keep what is written to it: entry {number:,} is not the backup's"
                )
