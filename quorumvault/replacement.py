"""A new disk for one node of a cluster whose own is lost, made by its operator: ``quorumvault init DIR --replace n2``.

    DIR/n2/                disk.json: a new identity, joining, in no view; store/: empty
    DIR/n2.set-aside-1/    what was in n2 before, all of it; DIR/n2/n2.set-aside-1/ if n2 is where a volume is mounted
    DIR/cluster.yaml       n2's new addresses, if it has moved to another host; the rest of the text is left as it is

The node joins when it is served and both others are active (protocol/joining.py). Until then its old disk is the cluster's:
whoever renames n2.set-aside-1 back has taken nothing away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import yaml

from quorumvault.addresses import Address, Endpoints
from quorumvault.config import load_cluster
from quorumvault.disk import DiskIdentity, lock_data_directory, sync_directory, write_identity
from quorumvault.errors import DirectoryInUse, InitRefused
from quorumvault.initialise import CLUSTER_FILE, check_host
from quorumvault.model import NODE_NAMES
from quorumvault.nodedisk import IDENTITY_FILE, STORE_DIRECTORY, set_aside, set_aside_contents
from quorumvault.protocol.views import DISK_BYTES, Mode
from quorumvault.storage.leveldb import LevelDBStore


@dataclass(frozen=True, slots=True)
class Replaced:
    """``set_aside``: where the node's old directory is now, if there was one. ``endpoints``: where the node is from now on."""

    cluster_file: Path
    data_directory: Path
    disk: bytes
    endpoints: Endpoints
    set_aside: Path | None


def replace_disk(directory: Path, node: str, host: str | None, *, entropy: Callable[[int], bytes]) -> Replaced:
    """A new disk for ``node`` of the cluster in ``directory``, at another ``host`` if one is given, with the ports it had.

    Nothing is removed. Raises InitRefused, ConfigError; ValueError says what is wrong with the host.
    """
    file = directory.absolute() / CLUSTER_FILE
    cluster = load_cluster(file)
    if node not in NODE_NAMES:
        raise InitRefused(f"{file}: no node {node!r} in this cluster; expected one of {', '.join(NODE_NAMES)}")
    moved = None if host is None else _moved(file, node, host)
    place = cluster.data_directory(node)
    identity = DiskIdentity(cluster.cluster_id, node, entropy(DISK_BYTES), 0, Mode.JOINING, None)
    with _free(place, node) as aside:
        place.mkdir(mode=0o700, parents=True, exist_ok=aside is not None)
        write_identity(place / IDENTITY_FILE, identity)
        LevelDBStore.create(place / STORE_DIRECTORY, identity.disk).close()
        sync_directory(place.parent)
    if moved is not None:
        _write(file, moved)
        cluster = load_cluster(file)
    return Replaced(file, place, identity.disk, cluster.nodes[node], aside)


@contextmanager
def _free(place: Path, node: str) -> Iterator[Path | None]:
    """Sets aside what is there, and owns it for the block, so that no process starts on it meanwhile."""
    if not place.exists():
        yield None
        return
    try:
        with lock_data_directory(place):
            try:
                aside = set_aside_contents(place) if place.is_mount() else set_aside(place)
            except OSError as error:
                raise InitRefused(f"{place}: cannot be set aside: {error.strerror}; nothing was changed") from None
            yield aside
    except DirectoryInUse:
        raise InitRefused(f"{place}: {node} runs with this data; stop it first: nothing was changed") from None


def _moved(file: Path, node: str, host: str) -> str:
    """The text of cluster.yaml with this node at another host. Raises InitRefused where that is not for a program to decide."""
    check_host(host)
    text = file.read_text(encoding="utf-8")
    document = yaml.compose(text, yaml.SafeLoader)
    values = {} if document is None else _scalars(document, node)
    if extra := values.keys() & {"listen_api", "listen_peer"}:
        raise InitRefused(
            f"{file}: nodes.{node}.{min(extra)} says where it listens: change its addresses yourself, without --host"
        )
    for scalar in sorted(values.values(), key=lambda scalar: -scalar.start_mark.index):
        port = int(scalar.value.rpartition(":")[2])
        text = f'{text[: scalar.start_mark.index]}"{Address(host, port)}"{text[scalar.end_mark.index :]}'
    return text


def _scalars(document: yaml.Node, node: str) -> dict[str, yaml.ScalarNode]:
    """The addresses of a node, with their places in the text. The file has been loaded, so it has the form that it should."""
    for name in ("nodes", node):
        document = next(value for key, value in document.value if key.value == name)
    return {key.value: value for key, value in document.value}


def _write(file: Path, text: str) -> None:
    """Replaces the file, with the permissions that it has."""
    with NamedTemporaryFile("w", dir=file.parent, prefix=f"{file.name}.", encoding="utf-8", delete=False) as new:
        new.write(text)
        new.flush()
        os.fchmod(new.fileno(), file.stat().st_mode & 0o777)
        os.fsync(new.fileno())
    Path(new.name).replace(file)
    sync_directory(file.parent)
