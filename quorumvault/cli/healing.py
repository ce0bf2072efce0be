"""``quorumvault repair`` and ``verify``: replicas are compared, now, by the nodes themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quorumvault.cli.main import ERROR
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, say, visible
from quorumvault.config.cluster import load_cluster
from quorumvault.errors import ConfigError

if TYPE_CHECKING:
    from quorumvault.cli.admin_client import AdminClient
    from quorumvault.server.http.admin.schemas import PeerDifferences, PeerRepair


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    directory = click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
    node = click.option("--node", required=True, envvar="QUORUMVAULT_NODE", metavar="NAME", help="Which node: n1, n2 or n3.")
    return directory(node(json_option(command)))


def client_of(directory: Path, node: str) -> AdminClient:
    from quorumvault.cli.admin_client import AdminClient

    cluster = load_cluster(directory / "cluster.yaml")
    if node not in cluster.nodes:
        raise ConfigError(cluster.file, "nodes", f"no node {node!r} in this cluster; expected one of {', '.join(cluster.nodes)}")
    return AdminClient(cluster.data_directory(node))


@click.command(
    short_help="Compare replicas and mend what differs.",
    epilog="\b\nExample:\n  quorumvault repair vault --node n1",
)
@node_options
def repair(directory: Path, node: str, as_json: bool) -> int:
    """Have a node compare its replica with the two others and bring to either side what it lacks.

    Nodes do that by themselves every few minutes; this is for who does not want to wait. It asks the node through its socket in
    DIR, on the node's own host, and returns when nothing is left to mend. Exit 1 if a peer could not be compared.
    """
    repaired = client_of(directory, node).repair()
    if as_json:
        print_json(repaired)
    else:
        for peer, found in repaired.peers.items():
            say(f"{repaired.node} and {peer}: {_mended(found)}")
    return ERROR if any(found.problem or found.unreadable for found in repaired.peers.values()) else 0


def _mended(found: PeerRepair) -> str:
    if found.problem is not None:
        return f"not compared: {visible(found.problem)}"
    text = f"{found.taken:,} records taken, {found.given:,} given, {found.raised:,} epochs raised"
    return f"{text}, {found.unreadable:,} buckets cannot be read" if found.unreadable else text


@click.command(
    short_help="Compare all replicas, record by record.",
    epilog="\b\nExample:\n  quorumvault verify vault --node n1",
)
@node_options
def verify(directory: Path, node: str, as_json: bool) -> int:
    """Have a node compare its replica with the two others, record by record as they are on disk, and change nothing.

    It asks the node through its socket in DIR, on the node's own host. What is being written meanwhile is looked at again until
    it is everywhere. Exit 1 unless all three are identical.
    """
    verified = client_of(directory, node).verify()
    identical = all(found.identical for found in verified.peers.values())
    if as_json:
        print_json(verified)
        return 0 if identical else ERROR
    for peer, found in verified.peers.items():
        say(f"{verified.node} and {peer}: {_differences(verified.node, peer, found)}")
    return 0 if identical else ERROR


def _differences(node: str, peer: str, found: PeerDifferences) -> str:
    if found.problem is not None:
        return f"not compared: {visible(found.problem)}"
    if found.identical:
        return f"{found.records:,} records, identical"
    differences = (
        (found.only_here, f"only on {node}"),
        (found.only_there, f"only on {peer}"),
        (found.unequal, "not the same"),
        (found.registers, "epochs not the same"),
        (found.unreadable, "buckets that cannot be read"),
    )
    return f"{found.records:,} records: " + ", ".join(f"{count:,} {what}" for count, what in differences if count)
