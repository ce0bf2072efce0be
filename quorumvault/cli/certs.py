"""``quorumvault certs``: the certificates of a cluster's nodes. It works on the files in the directory of ``quorumvault init``.
Nodes load new certificates on SIGHUP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quorumvault.cli.options import all_of, cluster_options, json_option
from quorumvault.cli.output import print_json, print_table, say
from quorumvault.config.cluster import Cluster, load_cluster
from quorumvault.config.tls import OWN_CA
from quorumvault.errors import Refused
from quorumvault.model import NODE_NAMES

if TYPE_CHECKING:
    from quorumvault.server.offline.certificates import CertificateStore, Issued


@click.group()
def certs() -> None:
    """Create, list, renew and revoke the nodes' TLS certificates.

    \b
    Example:
      quorumvault certs list vault
    """


_some_nodes = click.option(
    "--node", "nodes", multiple=True, type=click.Choice(NODE_NAMES), help="Which node. Repeatable. Default: all."
)
_days = click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Validity in days, at most that of the CA."
)
_making = all_of(_some_nodes, _days)


def _now() -> datetime:
    return datetime.now(UTC)


def _store(cluster: Cluster) -> CertificateStore:
    from quorumvault.server.offline.certificates import CertificateStore

    return CertificateStore(cluster, _now)


@certs.command("list", epilog="\b\nExample:\n  quorumvault certs list vault")
@cluster_options
@json_option
def list_(config: Path, as_json: bool) -> None:
    """List all certificates that this cluster's CA has issued. Without the CA's key here, list those in use on this machine."""
    from quorumvault.server.offline import certificates

    cluster = load_cluster(config)
    if (cluster.file.parent / certificates.CA_KEY).exists():
        _show(_store(cluster).listed(), as_json=as_json)
        return
    rows = [
        {"node": node, "use": key.partition(".")[0], "serial": f"{found.serial_number:x}", "ends": found.not_valid_after_utc}
        | {"file": str(path)}
        for node, key, path, found in certificates.configured(cluster, NODE_NAMES)
    ]
    if as_json:
        print_json({"certificates": rows})
    else:
        print_table(list(rows[0]) if rows else ["node"], [[str(value) for value in row.values()] for row in rows])


@certs.command(
    epilog="""\b
Examples:
  quorumvault certs issue vault
  quorumvault certs issue vault --node n2"""
)
@cluster_options
@_making
@json_option
def issue(config: Path, nodes: tuple[str, ...], days: int, as_json: bool) -> None:
    """Create certificates for nodes without one. With --node, create a new one even for a node that has one.

    A cluster without a CA gets one, such as a cluster of version 0.1. A replaced certificate stays valid until it is revoked.
    """
    from quorumvault.server.offline import certificates

    cluster = load_cluster(config)
    certificates.check_ours(cluster)
    base = cluster.file.parent
    if not (base / OWN_CA).exists():
        if nodes or days != 365:
            raise Refused(f"{base / OWN_CA}: there is no CA yet: certs issue without --node and --days makes it first")
        (base / "secrets").mkdir(mode=0o700, exist_ok=True)
        certificates.create(base, cluster.cluster_id, cluster.nodes, _now())
        made = [issued for issued in _store(cluster).listed() if issued.node != "ca"]
    else:
        wanted = nodes or [node for node in NODE_NAMES if not (base / certificates.own_certificate(node)).exists()]
        made = _store(cluster).issue(wanted, days)
    _tell(cluster, made, as_json=as_json)


@certs.command(epilog="\b\nExamples:\n  quorumvault certs renew vault\n  quorumvault certs renew vault --node n2 --days 90")
@cluster_options
@_making
@json_option
def renew(config: Path, nodes: tuple[str, ...], days: int, as_json: bool) -> None:
    """Replace certificates with new ones, which have new keys. The previous certificates stay valid until they expire."""
    cluster = load_cluster(config)
    _tell(cluster, _store(cluster).issue(nodes or NODE_NAMES, days), as_json=as_json)


@certs.command(epilog="\b\nExample:\n  quorumvault certs revoke vault --node n2")
@cluster_options
@click.option("--node", type=click.Choice(NODE_NAMES), help="Revoke all certificates of this node so far.")
@click.option("--serial", metavar="HEX", help="Revoke the certificate with this serial number, as shown by certs list.")
@json_option
def revoke(config: Path, node: str | None, serial: str | None, as_json: bool) -> None:
    """Revoke certificates. A node rejects them once it has received and read the new list.

    Use this for a node that may be in somebody else's hands. To let the node return, give it a new certificate
    (certs issue --node) and a new disk.
    """
    if (node is None) == (serial is None):
        raise click.UsageError("say which: --node, or --serial")
    cluster = load_cluster(config)
    revoked = _store(cluster).revoke(lambda issued: issued.node == node or issued.shown_serial == (serial or "").lower())
    if not revoked:
        raise Refused(f"there is no certificate of {node or serial} that is not revoked already; see certs list")
    if as_json:
        print_json({"revoked": [_row(issued) for issued in revoked]})
        return
    for issued in revoked:
        say(f"{issued.shown_serial} of {issued.node} is revoked.")
    say(
        f"Copy {cluster.file.parent / 'secrets' / 'revoked.pem'} to the other hosts, under the same name, and send their nodes "
        "SIGHUP (or: quorumvault admin reload): until then they take it.",
        err=True,
    )


def _row(issued: Issued, **more: Any) -> dict[str, Any]:
    return {
        "node": issued.node,
        "serial": issued.shown_serial,
        "begins": issued.begins.isoformat(),
        "ends": issued.ends.isoformat(),
        "revoked": None if issued.revoked is None else issued.revoked.isoformat(),
        **more,
    }


def _show(issued: list[Issued], *, as_json: bool) -> None:
    if as_json:
        print_json({"certificates": [_row(each, state=_state(each)) for each in issued]})
        return
    rows = [[i.node, i.shown_serial, f"{i.begins:%Y-%m-%d}", f"{i.ends:%Y-%m-%d}", _state(i)] for i in issued]
    print_table(["node", "serial", "begins", "ends", "state"], rows)


def _state(issued: Issued) -> str:
    if issued.revoked is not None:
        return f"revoked {issued.revoked:%Y-%m-%d}"
    days = (issued.ends - _now()).days
    return "expired" if days < 0 else f"{days} days left"


def _tell(cluster: Cluster, made: list[Issued], *, as_json: bool) -> None:
    from quorumvault.server.offline.certificates import own_certificate

    base = cluster.file.parent
    files = {issued.node: str(base / own_certificate(issued.node)) for issued in made}
    if as_json:
        print_json({"certificates": [_row(issued, file=files[issued.node]) for issued in made]})
        return
    if not made:
        say("All nodes have a certificate; certs renew makes new ones.")
        return
    for issued in made:
        say(f"{files[issued.node]}  {issued.node}, until {issued.ends:%Y-%m-%d}")
    say(
        f"Carry each to its host, under the same name, with {base / 'secrets' / 'ca.pem'} and revoked.pem, and send its node "
        "SIGHUP (or: quorumvault admin reload).",
        err=True,
    )
