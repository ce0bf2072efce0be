"""Make a new disk for a node that has lost its own, as its operator: ``quorumvault init DIR --replace n2``.

    DIR/n2/                disk.json: a new identity, joining, in no view; store/: empty. Made as DIR/n2.new-…, which a crash
                           may leave behind; it is no node's disk
    DIR/n2.set-aside-1/    everything that was in n2 before; DIR/n2/n2.set-aside-1/ if n2 is where a volume is mounted
    DIR/cluster.yaml       n2's new addresses, if it has moved to another host; the rest of the text is left as it is

The new files get the owner and mode of the old directory or, if there is none, the owner of its parent directory. So a node that
runs as its own user can start with files that root has made.

The node joins when it is served and both other nodes are active (server/healing/join.py). Until then the old disk is still the
cluster's, and renaming n2.set-aside-1 back undoes the replacement.
"""

import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from quorumvault import durable
from quorumvault.config.addresses import Endpoints, check_host, parse_address
from quorumvault.config.cluster import load_cluster, parse_cluster
from quorumvault.errors import DirectoryInUse, Refused
from quorumvault.formats.yaml import parse_yaml, read_yaml, with_scalars
from quorumvault.model import NODE_NAMES
from quorumvault.ownership import hand_over, make_folder, require_replaceable, user_name
from quorumvault.protocol.views import DISK_BYTES, Mode
from quorumvault.server.offline.init import CLUSTER_FILE
from quorumvault.server.storage.data_directory import make_disk, quarantine, quarantine_contents
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory


@dataclass(frozen=True, slots=True)
class Replaced:
    """``quarantined``: where the node's old directory is now, if there was one. ``endpoints``: where the node is from now on."""

    cluster_file: Path
    data_directory: Path
    disk: bytes
    endpoints: Endpoints
    quarantined: Path | None


def replace_disk(directory: Path, node: str, host: str | None, *, entropy: Callable[[int], bytes]) -> Replaced:
    """Make a new disk for ``node`` of the cluster in ``directory``; on another ``host``, if given, with the same ports.

    Nothing is removed. Raises Refused, ConfigError; ValueError says what is wrong with the host.
    """
    file = directory.absolute() / CLUSTER_FILE
    cluster = load_cluster(file)
    if node not in NODE_NAMES:
        raise Refused(f"{file}: no node {node!r} in this cluster; expected one of {', '.join(NODE_NAMES)}")
    moved = None if host is None else _moved(file, node, host)
    if moved is not None:
        require_replaceable(file.resolve())
    place = cluster.data_directory(node)
    identity = DiskIdentity(cluster.cluster_id, node, entropy(DISK_BYTES), 0, Mode.JOINING, None)
    with ExitStack() as owned:
        aside = (_make_within if place.is_mount() else _make_beside)(place, identity, owned)
        if moved is not None:
            with durable.replacing(file.resolve()) as new:
                new.write(moved.encode())
            cluster = load_cluster(file)
    return Replaced(file, place, identity.disk, cluster.nodes[node], aside)


def _make_within(place: Path, identity: DiskIdentity, owned: ExitStack) -> Path:
    """Make a disk in a mount point: the directory stays, and the lock in it. Returns where its contents are now."""
    _own(place, identity.node, owned)
    aside = _out_of_the_way(quarantine_contents, place)
    make_disk(place, identity).close()
    hand_over(place)
    return aside


def _make_beside(place: Path, identity: DiskIdentity, owned: ExitStack) -> Path | None:
    """Make a directory that is complete, with its owner, before it gets its name: a supervisor may start the node at any time.

    Returns where the old directory is now, if there was one.
    """
    make_folder(place.parent)
    replaces = place.exists()
    if replaces:
        _own(place, identity.node, owned)
    fresh = Path(mkdtemp(prefix=f"{place.name}.new-", dir=place.parent))
    aside = None
    try:
        owned.enter_context(lock_data_directory(fresh))
        make_disk(fresh, identity).close()
        _inherit(fresh, place)
        if replaces:
            aside = _out_of_the_way(quarantine, place)
        _take_name(fresh, place, aside)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    durable.sync_directory(place.parent)
    return aside


def _inherit(fresh: Path, place: Path) -> None:
    """Gives a new directory the owner and the mode of what is at ``place``; if nothing is, the owner of the one around it."""
    if not place.exists():
        hand_over(fresh, place.parent.stat())
        return
    before = place.stat()
    hand_over(fresh, before)
    if fresh.stat().st_uid != before.st_uid:
        owner = user_name(before.st_uid)
        raise Refused(f"{place}: belongs to {owner}, and so has to what replaces it: run this as {owner} or root")
    fresh.chmod(stat.S_IMODE(before.st_mode))


def _own(place: Path, node: str, owned: ExitStack) -> None:
    try:
        owned.enter_context(lock_data_directory(place))
    except DirectoryInUse:
        raise Refused(f"{place}: {node} runs with this data; stop it first: nothing was changed") from None


def _out_of_the_way(move: Callable[[Path], Path], place: Path) -> Path:
    try:
        return move(place)
    except OSError as error:
        raise Refused(f"{place}: cannot be set aside: {error.strerror}; nothing was changed") from None


def _take_name(fresh: Path, place: Path, aside: Path | None) -> None:
    """Give the directory its name. Fails if a process has made a directory of that name meanwhile."""
    try:
        fresh.rename(place)
    except OSError as error:
        before = "" if aside is None else f"; what was there before is {aside}"
        raise Refused(
            f"{place}: something was put there meanwhile ({error.strerror}): stop what starts this node, and repeat this{before}"
        ) from None


def _moved(file: Path, node: str, host: str) -> str:
    """The text of cluster.yaml with this node at another host, which has been parsed.

    Raises Refused where that is not for a program to decide, ConfigError if the file would not be in order then.
    """
    check_host(host)
    text = read_yaml(file)
    content: Any = parse_yaml(file, text)
    addresses = content["nodes"][node]  # the file has been loaded, so it has the form that it should
    if extra := addresses.keys() & {"listen_api", "listen_peer"}:
        raise Refused(f"{file}: nodes.{node}.{min(extra)} says where it listens: change its addresses yourself, without --host")
    moved = {key: str(parse_address(file, f"nodes.{node}.{key}", at)._replace(host=host)) for key, at in addresses.items()}
    text = with_scalars(text, {("nodes", node, key): at for key, at in moved.items()})
    parse_cluster(file, text)
    return text
