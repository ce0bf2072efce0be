"""Make the directory of a cluster: configuration, secrets, first API keys, and three empty stores.

    DIR/cluster.yaml   fields.yaml   api_keys.yaml           all three nodes need these
    DIR/secrets/       master-s1.key  ca.pem  revoked.pem    all three nodes need these too; directory 0700, files 0600
                       n1.pem  n2.pem  n3.pem                each host needs its own
                       ca.key  issued.pem                    these stay on this machine (certificates.py)
    DIR/n1/ n2/ n3/    disk.json     store/                  one node each: its identity is outside the store that it names

The three disks form view 1 and are active from the start. This is safe only here, because nothing has been acknowledged yet.

cluster.yaml is first written under another name, which claims the directory. It gets its own name last, after everything has been
read back. So a directory has either a whole cluster that can start or none, and the first name marks a directory that an
interrupted init left behind.

Rules kept here: disk identity.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path

from quorumvault import durable
from quorumvault.config.addresses import Endpoints, is_loopback
from quorumvault.config.api_keys import FIRST_ALLOW, load_keys
from quorumvault.config.cluster import NodePlace, load_place, parse_cluster
from quorumvault.config.fields import load_fields
from quorumvault.config.key_changes import create_key, new_keyfile
from quorumvault.config.secrets import read_secret, write_secret
from quorumvault.config.tampering import close_folder
from quorumvault.config.tls import OWN_CERTIFICATE
from quorumvault.crypto.keys import SECRET_BYTES, Secret
from quorumvault.errors import ConfigError, Refused
from quorumvault.formats.yaml import with_scalars
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.ownership import hand_over, make_folder
from quorumvault.protocol.views import DISK_BYTES, Mode, first_view
from quorumvault.server.offline import certificates
from quorumvault.server.storage.data_directory import IDENTITY_FILE, identity_of, make_disk
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.store import Store

CLUSTER_FILE, FIELDS_FILE, KEYS_FILE = "cluster.yaml", "fields.yaml", "api_keys.yaml"
#: The id of a new cluster's master secret.
FIRST_MASTER = "s1"
_UNFINISHED = "cluster.yaml.unfinished"


@dataclass(frozen=True, slots=True)
class Initialised:
    """The new cluster. ``api_keys`` has the key of each owner: it is shown once and stored nowhere."""

    cluster_file: Path
    nodes: Mapping[str, Endpoints]
    api_keys: Mapping[str, str] = field(repr=False)


def init(
    directory: Path,
    nodes: Mapping[str, Endpoints],
    owners: Sequence[Owner],
    *,
    now: datetime,
    entropy: Callable[[int], bytes],
    tls: bool = False,
) -> Initialised:
    """Make a cluster in ``directory``, which may be missing but has to be empty. Raises Refused.

    ``tls``: its API speaks TLS although all of it is on this machine. ``entropy(n)`` gives n random bytes:
    ``secrets.token_bytes``. If it fails half-way the directory is empty again.
    """
    directory = directory.absolute()
    cluster_id = new_cluster_id(entropy)
    with new_cluster(directory, cluster_yaml(cluster_id, nodes, tls=tls)) as cluster_file:
        write_secrets(directory, entropy(SECRET_BYTES))
        certificates.create(directory, cluster_id, nodes, now)
        write_new(directory / FIELDS_FILE, _sample(FIELDS_FILE))
        keys = write_keys(directory / KEYS_FILE, owners, now, entropy, note="made by init")
        make_disks(directory, cluster_id, entropy)
    return Initialised(cluster_file, nodes, keys)


def new_cluster_id(entropy: Callable[[int], bytes]) -> str:
    return entropy(8).hex()


@contextmanager
def new_cluster(directory: Path, text: str) -> Iterator[Path]:
    """Claim a directory for a cluster with this cluster.yaml, which exists when the block has ended, and not before.

    Before the file gets its name, everything written is read back, as the three nodes will read it at their start. If that or the
    block fails, the directory is empty again. What root makes belongs to the directory's owner. Raises Refused for a directory
    that is not empty, ConfigError.
    """
    parse_cluster(directory / CLUSTER_FILE, text)
    _claim(directory, text)
    try:
        yield directory / CLUSTER_FILE
        hand_over(directory)
        for node in NODE_NAMES:
            read_back(load_place(directory / _UNFINISHED, node))
        (directory / _UNFINISHED).rename(directory / CLUSTER_FILE)
    except BaseException:
        _empty(directory)
        raise
    durable.sync_directory(directory)


def read_back(place: NodePlace) -> None:
    """Read the files that a node starts from beside its store, so that the command that wrote a bad one says so, not the node.

    A secret that comes from elsewhere than a file that is carried along is not asked for. Raises ConfigError, naming the file
    that is not in order.
    """
    cluster = place.cluster
    for key, path in cluster.shared_files(carried=True):
        if key == "secrets.master.file":
            read_secret(cluster.file, key, path)
    load_fields(cluster.fields)
    load_keys(cluster.api_keys)
    if identity_of(place) is None:
        raise ConfigError(place.data_directory / IDENTITY_FILE, "", "expected a disk identity; there is none")


def cluster_yaml(cluster_id: str, nodes: Mapping[str, Endpoints], master_id: str = FIRST_MASTER, *, tls: bool = False) -> str:
    """The text of a cluster.yaml, with a comment on every key, and every value that is put in between quotes.

    Its API speaks TLS if it is told so, or if others than this machine reach it.
    """
    tls = tls or not all(is_loopback(endpoints.listen_api) for endpoints in nodes.values())
    own: dict[tuple[str, ...], str] = {
        ("cluster_id",): cluster_id,
        ("secrets", "master", "id"): master_id,
        ("secrets", "master", "file"): f"secrets/{_master_file(master_id)}",
    }
    for node, endpoints in nodes.items():
        own |= {("nodes", node, "api"): str(endpoints.api), ("nodes", node, "peer"): str(endpoints.peer)}
    if tls:
        own["api", "certificate"] = OWN_CERTIFICATE
    return with_scalars(_sample(CLUSTER_FILE), own)


def _master_file(master_id: str) -> str:
    return f"master-{master_id}.key"


def _sample(name: str) -> str:
    """What a new cluster's file begins as: the sample that ``quorumvault samples`` writes."""
    return resources.files("quorumvault").joinpath("samples", name).read_text(encoding="utf-8")


def _claim(directory: Path, text: str) -> None:
    make_folder(directory)
    if (directory / CLUSTER_FILE).exists():
        raise Refused(f"{directory}: there is a cluster here already ({CLUSTER_FILE}); nothing was changed")
    if (directory / _UNFINISHED).exists():
        raise Refused(f"{directory}: an earlier init did not end (or still runs); remove what is in there and try again")
    if any(directory.iterdir()):
        raise Refused(f"{directory}: expected an empty directory, or one that does not exist yet; nothing was changed")
    _guard(directory)
    write_new(directory / _UNFINISHED, text)


def _guard(directory: Path) -> None:
    """Remove others' right to write in the directory: otherwise a node would not start there."""
    try:
        close_folder(directory)
    except PermissionError:
        raise Refused(
            f"{directory}: others can write in it, and so change who gets values, and it is not yours to close: name a directory "
            "in it, which is made"
        ) from None


def write_new(path: Path, text: str) -> None:
    """Write a new file, synced, that no other user can write."""
    durable.create(path, text.encode(), 0o644)


def write_secrets(directory: Path, master: Secret, master_id: str = FIRST_MASTER) -> None:
    """The master secret of the cluster in ``directory``, under the name that its cluster.yaml has for it."""
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o700)
    write_secret(secrets / _master_file(master_id), master)
    durable.sync_directory(secrets)


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
        with closing(make_disk(place, DiskIdentity(cluster_id, node, disk, 0, Mode.ACTIVE, view))) as store:
            if fill is not None:
                fill(node, store)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
