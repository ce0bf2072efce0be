"""``quorumvault admin``, ``repair`` and ``verify``: an operator's requests to a node on this host, through its admin socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quorumvault.cli.main import ERROR
from quorumvault.cli.options import admin_client, json_option, node_options
from quorumvault.cli.output import print_answer, print_json, print_table, say, visible

if TYPE_CHECKING:
    from quorumvault.server.http.admin.schemas import FactsStatus, NodeStatus, PeerDifferences, PeerRepair, PeerStatus

#: The characters of identities and fingerprints to show where they only have to be told apart.
_SHORT = 8


@click.group(short_help="Query or control a node on this host through its socket.")
def admin() -> None:
    """Query or control a node on this host, with requests that only its operator may make.

    Uses nX/admin.sock in the cluster's directory, which only the owner of that directory can open.

    \b
    Example:
      quorumvault admin status --config vault/cluster.yaml --node n1
    """


@admin.command(epilog="\b\nExample:\n  quorumvault admin status --config vault/cluster.yaml --node n1")
@node_options
@json_option
def status(config: Path, node: str, as_json: bool) -> None:
    """Show one node in detail: its disk, its view, fingerprints of what it holds, and what its peers report of theirs."""
    found = admin_client(config, node).status()
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
    compared = [_compare(facts.secrets, mine.secrets), _compare(facts.fields, mine.fields), _compare(facts.keys, mine.keys)]
    return [name, peer.address, link, back, *told, *compared, peer.error or ""]


def _compare(theirs: object, mine: object) -> str:
    return "same" if theirs == mine else "OTHER"


@admin.command(epilog="\b\nExample:\n  quorumvault admin reload --config vault/cluster.yaml --node n1")
@node_options
@json_option
def reload(config: Path, node: str, as_json: bool) -> int:
    """Make a node reload its API keys and its peers' addresses, as SIGHUP does, and report the result.

    If one of these cannot be read, the node keeps the previous one, and the exit code is 1.
    """
    reloaded = admin_client(config, node).reload()
    if as_json:
        print_json(reloaded)
    else:
        for what in reloaded.read:
            say(f"{node} has read its {what} again.")
        for what, why in reloaded.refused.items():
            say(visible(f"The {what} stay as they were: {why}"), err=True)
    return ERROR if reloaded.refused else 0


@admin.command(epilog="\b\nExample:\n  quorumvault admin stop --config vault/cluster.yaml --node n1")
@node_options
@json_option
def stop(config: Path, node: str, as_json: bool) -> None:
    """Ask a node to drain and stop, as SIGTERM does. It first completes the requests under way."""
    print_answer(admin_client(config, node).stop(), f"{node} drains, and ends when that is done.", as_json=as_json)


@click.command(short_help="Compare replicas and repair differences.", epilog="\b\nExample:\n  quorumvault repair vault --node n1")
@node_options
@click.option(
    "--accept-loss", is_flag=True, help="Give up what this node cannot read, here or elsewhere: it is not found from then on."
)
@json_option
def repair(config: Path, node: str, accept_loss: bool, as_json: bool) -> int:
    """Have a node compare its replica with the two others, and copy to each side what it lacks.

    Nodes do this by themselves every few minutes; use the command if you do not want to wait. It asks the node through its socket
    in DIR, on the node's own host, and returns when nothing is left to repair. Exit 1 if a peer could not be compared, or if the
    node has gaps: parts of its store with unreadable blocks, not all of which another disk can read. Tokens in gaps that no disk
    has get 503, because nobody can tell whether they existed. After --accept-loss these tokens are not found; take a backup
    first. --accept-loss is refused while another node cannot be compared, because its disk may have what is missing. A node that
    waits with an empty disk has nothing.
    """
    repaired = admin_client(config, node).repair(accept_loss=accept_loss)
    words = [f"{repaired.node} and {peer}: {_mended(found)}" for peer, found in repaired.peers.items()]
    if repaired.given_up:
        words.append(f"{repaired.node}: gave up {repaired.given_up:,} parts of its store that could not be read")
    if repaired.refusal:
        words.append(f"{repaired.node}: gave nothing up: {visible(repaired.refusal)}")
    if repaired.gaps:
        words.append(f"{repaired.node}: does not know what it had in {repaired.gaps:,} parts of its store")
    print_answer(repaired, "\n".join(words), as_json=as_json)
    unreadable = any(found.unreadable for found in repaired.peers.values()) and not repaired.given_up
    return ERROR if unreadable or repaired.gaps or any(found.problem for found in repaired.peers.values()) else 0


def _mended(found: PeerRepair) -> str:
    if found.problem is not None:
        return f"not compared: {visible(found.problem)}"
    text = f"{found.taken:,} records taken, {found.given:,} given, {found.raised:,} epochs raised"
    return f"{text}, {found.unreadable:,} buckets cannot be read" if found.unreadable else text


@click.command(short_help="Compare all replicas, record by record.", epilog="\b\nExample:\n  quorumvault verify vault --node n1")
@node_options
@json_option
def verify(config: Path, node: str, as_json: bool) -> int:
    """Have a node compare its replica with the two others, record by record as stored on disk, and change nothing.

    The command asks the node through its socket in DIR, on the node's own host. Records that are being written meanwhile are
    checked again until they are everywhere. Exit 1 unless all three replicas are identical.
    """
    verified = admin_client(config, node).verify()
    words = [f"{verified.node} and {peer}: {_differences(verified.node, peer, found)}" for peer, found in verified.peers.items()]
    print_answer(verified, "\n".join(words), as_json=as_json)
    return 0 if all(found.identical for found in verified.peers.values()) else ERROR


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
