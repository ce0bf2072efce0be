"""Make a new cluster from the last disk of an old one, when the other two are lost. Records that this disk lacks are lost.

    INTO/cluster.yaml   the old one's text, under a new cluster id     fields.yaml, api_keys.yaml, the master secret: as they were
    INTO/secrets/       a CA and certificates of its own: they name the cluster
    INTO/n1/ n2/ n3/    three new disks in view 1, active, each with all that the old disk has

With two of three disks lost there is no quorum, and no rule allows the third disk to continue: it cannot know what the other two
acknowledged without it. So the old cluster ends, and the disk's records begin a new one. Disks of the old cluster that turn up
later belong to another cluster, and can never vote beside the new disks. Tokens do not change: they depend only on the master
secret. Records that the disk cannot read, or that were in its gaps, are lost with the other disks, and not found in the new
cluster.

The old directory is left as it was, except for a torn tail (recover.py). The new directory is complete, or does not exist
(init.py).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quorumvault import durable
from quorumvault.config.api_keys import load_keys
from quorumvault.config.cluster import NodeConfig
from quorumvault.config.fields import load_fields
from quorumvault.config.tls import PeerSettings
from quorumvault.errors import Refused, StoreCorrupt
from quorumvault.formats.yaml import read_yaml, with_scalars
from quorumvault.ownership import hand_over, make_folder
from quorumvault.protocol import records
from quorumvault.protocol.clock import wall_ms_of
from quorumvault.protocol.views import Mode
from quorumvault.server.offline import certificates
from quorumvault.server.offline.disks_at_hand import open_store
from quorumvault.server.offline.init import make_disks, new_cluster, new_cluster_id
from quorumvault.server.offline.pack import portable_name
from quorumvault.server.offline.torn import Cut, cut_torn_tail
from quorumvault.server.offline.unite import Tell, read_through, readable_pieces
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import identity_of, why_untrusted
from quorumvault.server.storage.disk_identity import lock_data_directory
from quorumvault.server.storage.store import Store, write_all


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """``newest``: when the newest record of the old disk was first written, by its writer's clock; None if there is none.

    ``whole``: False if the old disk was still joining, and has a part of what its cluster had. ``distrusted``: why its node did
    not trust it, if that is so. ``unread``: the parts of its store that it could not read, or did not know all of.
    """

    cluster_file: Path
    records: int
    newest: datetime | None
    cuts: list[Cut]
    whole: bool
    distrusted: str | None
    unread: int


def rebuild(config: NodeConfig, into: Path, *, now: datetime, entropy: Callable[[int], bytes], tell: Tell) -> Rebuilt:
    """Make a cluster in ``into``, which may be missing but has to be empty, out of this node's disk.

    Raises Refused if there is no such disk or something is in ``into``, ConfigError if its node runs or a file that all nodes
    share is not in order, StorageFailed if anything but records cannot be read on the disk.
    """
    cluster, into = config.cluster, into.absolute()
    directory = config.data_directory
    if not directory.is_dir():
        raise Refused(f"{directory}: there is no such directory")
    load_fields(cluster.fields)
    load_keys(cluster.api_keys)
    with contextlib.ExitStack() as ending:
        ending.callback(hand_over, directory)
        ending.enter_context(lock_data_directory(directory))
        identity = identity_of(config)
        if identity is None:
            raise Refused(f"{directory}: there is no disk of {config.node} here")
        shared = [
            (path, portable_name(cluster, key, path)) for key, path in cluster.shared_files(carried=True) if path != cluster.file
        ]
        data = portable_name(cluster, "data", cluster.data)
        cuts = cut_torn_tail(directory)
        with closing(open_store(config, identity)) as old:
            unread = read_through(old).gaps
            if any(end <= layout.RECORD for end in unread):
                raise StoreCorrupt(f"{directory}: its registers, revoked keys or names of owners cannot all be read")
            cluster_id = new_cluster_id(entropy)
            with new_cluster(into, with_scalars(read_yaml(cluster.file), {("cluster_id",): cluster_id})) as cluster_file:
                for path, name in shared:
                    _copy(path, into / name)
                if cluster.peers == PeerSettings():  # those of another CA are made there, for the new cluster id
                    certificates.create(into, cluster_id, cluster.nodes, now)
                make_folder(into / data)
                found = _Census()

                def fill(node: str, store: Store) -> None:
                    nonlocal found
                    tell(f"{node}: gets what the disk of {config.node} has")
                    found = _Census()
                    write_all(store, found.counting(pair for piece in readable_pieces(old) for pair in zip(*piece, strict=True)))

                make_disks(into / data, cluster_id, entropy, fill)
            untrusted = why_untrusted(directory)
    distrusted = None if untrusted is None else untrusted.words
    return Rebuilt(cluster_file, found.records, found.newest, cuts, identity.mode is Mode.ACTIVE, distrusted, len(unread))


class _Census:
    """Counts the records of a store while it is copied, and finds the newest."""

    def __init__(self) -> None:
        self.records = 0
        self._clock = 0

    def counting(self, pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, value in pairs:
            if key.startswith(layout.RECORD):
                self.records += 1
                if records.holds_value(value):
                    self._clock = max(self._clock, records.version_of(value).clock)
            yield key, value

    @property
    def newest(self) -> datetime | None:
        return datetime.fromtimestamp(wall_ms_of(self._clock) / 1000, UTC) if self._clock else None


def _copy(path: Path, copy: Path) -> None:
    """Copy a file with its mode, into a directory with the mode of its own."""
    copy.parent.mkdir(mode=path.parent.stat().st_mode & 0o777, parents=True, exist_ok=True)
    durable.copy(path, copy, path.stat().st_mode & 0o777)
