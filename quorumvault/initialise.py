"""Making a cluster's directory: configuration, secrets, first API keys, and three empty stores.

    DIR/cluster.yaml   fields.yaml   api_keys.yaml           all three nodes need these
    DIR/secrets/       cluster.key   master-s1.key           0700, files 0600; these too
    DIR/n1/ n2/ n3/    disk.json     store/                  one node each: its identity, outside of the store that it names

The three disks make view 1, active from the start (rule 14). That is safe here only: nothing has ever been acknowledged.

cluster.yaml is written first under another name, which claims the directory, and gets its own name last. So a directory has
either a whole cluster or none, and one that an interrupted init left behind says so.
"""

from __future__ import annotations

import os
import re
import shutil
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from ipaddress import ip_address
from pathlib import Path

from quorumvault.addresses import WILDCARDS, Address, Endpoints
from quorumvault.disk import DiskIdentity, sync_directory, write_identity
from quorumvault.errors import InitRefused
from quorumvault.keyfile import FIRST_ALLOW, create_key, new_keyfile
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.nodedisk import IDENTITY_FILE, STORE_DIRECTORY
from quorumvault.ownership import hand_over, make_folder
from quorumvault.protocol.views import DISK_BYTES, Mode, first_view
from quorumvault.secretfiles import SECRET_BYTES, write_secret
from quorumvault.storage.leveldb import LevelDBStore
from quorumvault.storage.store import Store
from quorumvault.tampering import close_folder

#: Peer ports are this far above API ports, which leaves room for a few of either.
PEER_OFFSET = 10
#: So that the last peer port is one.
MAX_BASE_PORT = 65_535 - PEER_OFFSET - len(NODE_NAMES) + 1

CLUSTER_FILE, FIELDS_FILE, KEYS_FILE = "cluster.yaml", "fields.yaml", "api_keys.yaml"
#: The id of a new cluster's master secret.
FIRST_MASTER = "s1"
_UNFINISHED = "cluster.yaml.unfinished"
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


@dataclass(frozen=True, slots=True)
class Initialised:
    """What was made. ``api_keys`` has each owner's key: shown once, stored nowhere."""

    cluster_file: Path
    nodes: Mapping[str, Endpoints]
    api_keys: Mapping[str, str] = field(repr=False)


def plan_nodes(hosts: Sequence[str], base_port: int) -> dict[str, Endpoints]:
    """Addresses of the three nodes on one host, with ports of their own, or on three hosts with the same ports.

    ValueError says what is wrong with the hosts or the port.
    """
    for host in hosts:
        check_host(host)
    if len(set(hosts)) != len(hosts) or len(hosts) not in (1, len(NODE_NAMES)):
        raise ValueError(f"expected one host for all nodes, or {len(NODE_NAMES)} different ones separated by commas")
    if not 1 <= base_port <= MAX_BASE_PORT:
        raise ValueError(f"expected a base port from 1 to {MAX_BASE_PORT}")
    if len(hosts) == 1:
        places = [(hosts[0], base_port + number) for number in range(len(NODE_NAMES))]
    else:
        places = [(host, base_port) for host in hosts]
    return {node: _at(host, port) for node, (host, port) in zip(NODE_NAMES, places, strict=True)}


def _at(host: str, port: int) -> Endpoints:
    api, peer = Address(host, port), Address(host, port + PEER_OFFSET)
    return Endpoints(api, peer, listen_api=api, listen_peer=peer)


def check_host(host: str) -> None:
    """ValueError for what is neither an address of one machine nor a name."""
    if host in WILDCARDS:
        raise ValueError(f"{host} is no address that others can reach; name the host, and set listen_api in cluster.yaml")
    if ":" in host:
        ip_address(host)
    elif not _HOST_NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{host!r} is neither an IP address nor a host name")


def init(
    directory: Path, nodes: Mapping[str, Endpoints], owners: Sequence[Owner], *, now: datetime, entropy: Callable[[int], bytes]
) -> Initialised:
    """Make a cluster in ``directory``, which may be missing but has to be empty. Raises InitRefused.

    ``entropy(n)`` gives n random bytes: ``secrets.token_bytes``. If it fails half-way the directory is empty again.
    """
    directory = directory.absolute()
    cluster_id = new_cluster_id(entropy)
    with new_cluster(directory, cluster_yaml(cluster_id, nodes)) as cluster_file:
        write_secrets(directory, entropy(SECRET_BYTES), entropy(SECRET_BYTES))
        write_new(directory / FIELDS_FILE, _template(FIELDS_FILE))
        keys = write_keys(directory / KEYS_FILE, owners, now, entropy, note="made by init")
        make_disks(directory, cluster_id, entropy)
    return Initialised(cluster_file, nodes, keys)


def new_cluster_id(entropy: Callable[[int], bytes]) -> str:
    return entropy(8).hex()


@contextmanager
def new_cluster(directory: Path, text: str) -> Iterator[Path]:
    """Claims a directory for a cluster with this cluster.yaml, which is there when the block has ended, and not before.

    If the block fails the directory is empty again. What root makes belongs to the directory's owner. Raises InitRefused for one
    that has anything in it.
    """
    _claim(directory, text)
    try:
        yield directory / CLUSTER_FILE
        hand_over(directory)
        (directory / _UNFINISHED).rename(directory / CLUSTER_FILE)
    except BaseException:
        _empty(directory)
        raise
    sync_directory(directory)


def cluster_yaml(cluster_id: str, nodes: Mapping[str, Endpoints], master_id: str = FIRST_MASTER) -> str:
    """The text of a cluster.yaml, with a comment on every key."""
    values = {"cluster_id": cluster_id, "master": master_id}
    for node, endpoints in nodes.items():
        values |= {f"{node}_api": str(endpoints.api), f"{node}_peer": str(endpoints.peer)}
    return string.Template(_template(CLUSTER_FILE)).substitute(values)


def _template(name: str) -> str:
    return resources.files("quorumvault").joinpath("templates", name).read_text(encoding="utf-8")


def _claim(directory: Path, text: str) -> None:
    make_folder(directory)
    if (directory / CLUSTER_FILE).exists():
        raise InitRefused(f"{directory}: there is a cluster here already ({CLUSTER_FILE}); nothing was changed")
    if (directory / _UNFINISHED).exists():
        raise InitRefused(f"{directory}: an earlier init did not end (or still runs); remove what is in there and try again")
    if any(directory.iterdir()):
        raise InitRefused(f"{directory}: expected an empty directory, or one that does not exist yet; nothing was changed")
    _guard(directory)
    write_new(directory / _UNFINISHED, text)


def _guard(directory: Path) -> None:
    """Nobody else may write in it from now on: a node would not start there."""
    try:
        close_folder(directory)
    except PermissionError:
        raise InitRefused(
            f"{directory}: others can write in it, and so change who gets values, and it is not yours to close: name a directory "
            "in it, which is made"
        ) from None


def write_new(path: Path, text: str) -> None:
    """A new file, synced, that nobody else can write."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_secrets(directory: Path, cluster: bytes, master: bytes, master_id: str = FIRST_MASTER) -> None:
    """The two secrets of the cluster in ``directory``, under the names that its cluster.yaml has for them."""
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o700)
    write_secret(secrets / "cluster.key", cluster)
    write_secret(secrets / f"master-{master_id}.key", master)
    sync_directory(secrets)


def write_keys(
    path: Path, owners: Iterable[Owner], now: datetime, entropy: Callable[[int], bytes], *, note: str
) -> dict[str, str]:
    """A new key file with a key for each owner, with what first keys may do. Answers the keys, by owner."""
    new_keyfile(path)
    return {
        owner.name: create_key(path, owner.name, now=now, entropy=entropy, allow=FIRST_ALLOW, note=note, new_owner=True).text
        for owner in owners
    }


def make_disks(
    directory: Path, cluster_id: str, entropy: Callable[[int], bytes], fill: Callable[[str, Store], None] | None = None
) -> None:
    """The three disks of view 1, empty unless ``fill(node, store)`` puts something in, which has to be the same in each."""
    view = first_view({node: entropy(DISK_BYTES) for node in NODE_NAMES})
    for node, disk in view.disks.items():
        place = directory / node
        place.mkdir(mode=0o700)
        with closing(LevelDBStore.create(place / STORE_DIRECTORY, disk)) as store:
            if fill is not None:
                fill(node, store)
        write_identity(place / IDENTITY_FILE, DiskIdentity(cluster_id, node, disk, 0, Mode.ACTIVE, view))


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
