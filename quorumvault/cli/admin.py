"""``quorumvault admin``: what an operator asks of a node on its own host, through the socket in its data directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quorumvault.cli.main import ERROR
from quorumvault.cli.options import config_option, json_option
from quorumvault.cli.output import print_json, print_table, say, visible
from quorumvault.config.cluster import load_cluster
from quorumvault.errors import ConfigError

if TYPE_CHECKING:
    from quorumvault.cli.admin_client import AdminClient
    from quorumvault.server.http.admin.schemas import FactsStatus, NodeStatus, PeerStatus

#: Of identities and fingerprints, where they only have to be told apart.
_SHORT = 8


@click.group()
def admin() -> None:
    """Ask a node on this host what it tells nobody else, and what nobody else may ask.

    Goes through nX/admin.sock in the cluster's directory, which only the owner of that directory can open.

    \b
    Example:
      quorumvault admin status --config vault/cluster.yaml --node n1
    """


def _node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    node = click.option("--node", required=True, envvar="QUORUMVAULT_NODE", metavar="NAME", help="Which node: n1, n2 or n3.")
    return config_option(node(json_option(command)))


def _client(config: Path, node: str) -> AdminClient:
    from quorumvault.cli.admin_client import AdminClient

    cluster = load_cluster(config)
    if node not in cluster.nodes:
        raise ConfigError(cluster.file, "nodes", f"no node {node!r} in this cluster; expected one of {', '.join(cluster.nodes)}")
    return AdminClient(cluster.data_directory(node))


@admin.command(epilog="\b\nExample:\n  quorumvault admin status --config vault/cluster.yaml --node n1")
@_node_options
def status(config: Path, node: str, as_json: bool) -> None:
    """Show one node in depth: its disk, its view, fingerprints of what it holds, and what its peers told it of theirs."""
    found = _client(config, node).status()
    if as_json:
        print_json(found)
        return
    print_table(["", found.node], _own_rows(found))
    say("")
    columns = ["peer", "address", "link", "back", "version", "state", "disk", "view", "secrets", "fields", "keys", "error"]
    print_table(columns, [_peer_row(name, peer, found.facts) for name, peer in found.peers.items()])
    for warning in found.health.warnings:
        say(visible(warning))


def _own_rows(found: NodeStatus) -> list[list[str]]:
    facts, view = found.facts, found.facts.view
    return [
        ["process", f"{found.pid}, version {facts.version}, {found.in_flight} of {found.limits.in_flight} requests under way"],
        ["status", f"{found.health.status}, {found.health.state}, reaches {found.health.quorum.reachable} nodes"],
        ["votes", "yes" if facts.established else "not before it knows that no other process has its name"],
        ["api, peer", f"{found.api}, {found.peer}"],
        ["data", found.data],
        ["disk", f"{facts.disk}, start {facts.incarnation}, write {'-' if found.sequence is None else found.sequence}"],
        ["view", "-" if view is None else f"{view.number}: {', '.join(f'{n} {d[:_SHORT]}' for n, d in view.disks.items())}"],
        ["secrets", ", ".join(f"{name} {fingerprint}" for name, fingerprint in facts.secrets.items())],
        ["fields", facts.fields],
        ["keys", facts.keys],
    ]


def _peer_row(name: str, peer: PeerStatus, mine: FactsStatus) -> list[str]:
    link, back = "up" if peer.up else "down", "up" if peer.connected else "down"
    facts = peer.facts
    if facts is None:
        return [name, peer.address, link, back, *["-"] * 7, peer.error or ""]
    told = [facts.version, facts.mode, facts.disk[:_SHORT], "-" if facts.view is None else str(facts.view.number)]
    compared = [
        _compare(facts.secrets, mine.secrets),
        _compare(facts.fields, mine.fields),
        _compare(facts.keys, mine.keys),
    ]
    return [name, peer.address, link, back, *told, *compared, peer.error or ""]


def _compare(theirs: object, mine: object) -> str:
    return "same" if theirs == mine else "OTHER"


@admin.command(epilog="\b\nExample:\n  quorumvault admin reload --config vault/cluster.yaml --node n1")
@_node_options
def reload(config: Path, node: str, as_json: bool) -> int:
    """Make a node read its API keys and its peers' addresses again, as SIGHUP does, and hear what came of it.

    What cannot be read stays as it was, and the exit code is 1.
    """
    reloaded = _client(config, node).reload()
    if as_json:
        print_json(reloaded)
    else:
        for what in reloaded.read:
            say(f"{node} has read its {what} again.")
        for what, why in reloaded.refused.items():
            say(visible(f"The {what} stay as they were: {why}"), err=True)
    return ERROR if reloaded.refused else 0


@admin.command(epilog="\b\nExample:\n  quorumvault admin stop --config vault/cluster.yaml --node n1")
@_node_options
def stop(config: Path, node: str, as_json: bool) -> None:
    """Ask a node to drain and to end, as SIGTERM does. It serves what is under way first."""
    stopping = _client(config, node).stop()
    if as_json:
        print_json(stopping)
    else:
        say(f"{node} drains, and ends when that is done.")
