"""Shows the nodes' reports about themselves, as rows for people and as JSON for machines."""

from collections.abc import Iterable

import msgspec

from quorumvault.cli.output import visible
from quorumvault.client import NodeHealth
from quorumvault.client.results import Health, PeerHealth

#: Warnings can be long: on a terminal they are printed below the table.
COLUMNS = ("node", "url", "status", "state", "reachable", "peers", "version", "warnings")


def is_ready(health: NodeHealth) -> bool:
    """Returns whether the node takes requests and reaches a quorum."""
    report = health.report
    return report is not None and report.status in ("ok", "degraded") and report.state != "draining"


def why_not_ready(health: NodeHealth) -> str:
    report = health.report
    if report is None:
        return health.problem or "no answer"
    reachable, needed = report.quorum.reachable, report.quorum.needed
    return f"{report.status}, {report.state}, reaches {reachable} of the {needed} active replicas it needs"


def row(health: NodeHealth) -> tuple[str, ...]:
    """Returns the cells of COLUMNS. A node that did not answer has no name here: only the node itself reports it."""
    report = health.report
    if report is None:
        return ("?", health.url, "no answer", "", "", "", "", health.problem or "")
    reachable = f"{report.quorum.reachable} of {len(report.peers) + 1}"
    return (
        report.node,
        health.url,
        report.status,
        _state(report),
        reachable,
        _peers(health),
        report.version,
        "; ".join(report.warnings),
    )


def _state(report: Health) -> str:
    """Returns the state, and for a joining disk the number of records it has copied."""
    joining = report.joining
    if joining is None or joining.waits_for is not None:
        return report.state if joining is None else f"{report.state} (waits: {joining.waits_for})"
    whole = "" if joining.expected is None else f" of about {joining.expected:,}"
    return f"{report.state} ({joining.records:,}{whole} records copied)"


def _peers(health: NodeHealth) -> str:
    """Returns the peers that are not up and active, or that lack records: these need attention."""
    peers = health.report.peers if health.report else {}
    return ", ".join(filter(None, (_peer(node, peer) for node, peer in peers.items()))) or "all active"


def _peer(node: str, peer: PeerHealth) -> str:
    state = (peer.state or "up") if peer.status == "up" else "down"
    owed = f"lacks {peer.owed_records:,} records since {peer.owed_seconds:.0f} s" if peer.owed_records else ""
    if state == "active" and not owed:
        return ""
    return f"{node} {state} ({owed})" if owed else f"{node} {state}"


def warnings(healths: Iterable[NodeHealth]) -> list[str]:
    """Returns one line for each warning, with the node that gives it, safe for a terminal."""
    lines = []
    for health in healths:
        if health.report is None:
            lines.append(f"{health.url}: {health.problem or 'no answer'}")
        else:
            lines += [f"{health.report.node}: {warning}" for warning in health.report.warnings]
    return list(map(visible, lines))


def as_object(healths: Iterable[NodeHealth]) -> dict[str, object]:
    """Returns the object for --json: ``quorum`` is true if any node can serve requests."""
    nodes = [{"url": each.url, "health": msgspec.to_builtins(each.report), "problem": each.problem} for each in healths]
    return {"quorum": any(map(is_ready, healths)), "nodes": nodes}
