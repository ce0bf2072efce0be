"""A tar of everything that one node needs on its own host: configuration, secrets and data, and nothing of the other nodes.

    cluster.yaml   fields.yaml   api_keys.yaml       under the names that cluster.yaml has for them
    secrets/master-s1.key  n1.pem  ca.pem  revoked.pem   only those that cluster.yaml names for this node: not the CA's key
    nX/disk.json   nX/store/...                      all of nX except its lock, its socket and its logs

Unpacked into an empty directory, the tar makes a directory from which that node can be served. Names are relative and in order;
modes and times are the files' own, and owners are left out, so the same directory always makes the same bytes.

The node must be stopped, and must stay stopped while this runs: half a store is useless. The tar has the node's disk, including
its identity, so only one of the two copies may run afterwards; peers turn the other away (server/peers/claims.py).
"""

import os
import shlex
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from quorumvault.config.certificates import load_credentials
from quorumvault.config.cluster import Cluster, NodePlace
from quorumvault.errors import ConfigError, DirectoryInUse, Refused
from quorumvault.server.http.admin import socket
from quorumvault.server.offline.init import read_back
from quorumvault.server.storage.data_directory import STORE_DIRECTORY, identity_of, is_quarantined
from quorumvault.server.storage.disk_identity import LOCK_FILE, lock_data_directory
from quorumvault.server.telemetry.event_log import FILE_NAME as EVENT_LOG

#: Files that LevelDB makes anew at each start: its lock and its own log of messages.
_OF_LEVELDB = ("LOCK", "LOG", "LOG.old")


@dataclass(frozen=True, slots=True)
class Packed:
    """``disk`` is the id of the packed disk, ``files`` their number, ``size`` their bytes together.

    ``of_host``: the keys of cluster.yaml whose files, or secret, are not in it.
    """

    disk: bytes
    files: int
    size: int
    of_host: list[str]


def pack(place: NodePlace, sink: BinaryIO) -> Packed:
    """Write the tar of this node, when all that its host will start it from, and is carried there, has been read.

    Raises Refused if it runs or has no disk, ConfigError for what lies elsewhere or is not in order.
    """
    cluster, directory = place.cluster, place.data_directory
    base, data = cluster.file.parent, portable_name(cluster, "data", directory)
    of_host, secured = cluster.of_hosts(place.node), list(cluster.tls_files(place.node, carried=True))
    if set(of_host) <= {cluster.secrets.master.source}:  # else a part of it is not here
        load_credentials(cluster, place.node)
    shared = {portable_name(cluster, key, path) for key, path in (*cluster.shared_files(carried=True), *secured)}
    identity = identity_of(place)
    if identity is None:
        raise Refused(f"{directory}: there is no disk of {place.node} here, so there is nothing that its host would need")
    read_back(place)
    try:
        with lock_data_directory(directory), tarfile.open(fileobj=sink, mode="w|") as tar:
            files = shared | {data / name for name in _data_files(directory)}
            parents = {parent for name in files for parent in name.parents if parent != Path()}
            for name in sorted(files | parents):
                _add(tar, base / name, name)
            return Packed(identity.disk, len(files), sum((base / name).stat().st_size for name in files), of_host)
    except DirectoryInUse:
        raise Refused(
            f"{directory}: {place.node} runs, and its store changes meanwhile; stop it first: "
            f"quorumvault admin stop --config {shlex.quote(str(cluster.file))} --node {place.node}"
        ) from None


def portable_name(cluster: Cluster, key: str, path: Path) -> Path:
    """Return the path relative to cluster.yaml, under which it is unpacked. Raises ConfigError for one that is not below it."""
    base = cluster.file.parent
    name = Path(os.path.relpath(path, base))
    if ".." in name.parts:
        raise ConfigError(cluster.file, key, f"expected a place below {base}, so that it can be carried with it; {path} is not")
    return name


def _data_files(directory: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(directory, followlinks=True):
        for path in (Path(parent, name) for name in names):
            name = path.relative_to(directory)
            if path.is_file() and not _stays(name):
                yield name


def _stays(name: Path) -> bool:
    """True for a file of a data directory that is of no use on another host."""
    if name.parent == Path(STORE_DIRECTORY):
        return name.name in _OF_LEVELDB
    first = name.parts[0]
    return first in (LOCK_FILE, socket.FILE_NAME) or first.startswith(EVENT_LOG) or is_quarantined(first)


def _add(tar: tarfile.TarFile, path: Path, name: Path) -> None:
    status = path.stat()
    member = tarfile.TarInfo(str(name))
    member.mode = status.st_mode & 0o777
    member.mtime = int(status.st_mtime)
    if path.is_dir():
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    else:
        member.size = status.st_size
        with path.open("rb") as file:
            tar.addfile(member, file)
