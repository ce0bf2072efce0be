"""Shows an operator the facts that a node and its peers tell about themselves."""

from collections.abc import Mapping

from quorumvault.protocol.views import NO_DISK, View
from quorumvault.server.http.admin.schemas import FactsStatus, PeerStatus, ViewStatus
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link


def show_facts(facts: NodeFacts) -> FactsStatus:
    return FactsStatus(
        version=facts.version,
        disk=facts.disk.hex(),
        incarnation=facts.incarnation,
        mode=facts.mode.value,
        established=facts.established,
        view=None if facts.view is None else _show_view(facts.view),
        secrets=facts.secrets,
        fields=facts.fields,
        keys=facts.keys,
        damaged=facts.damaged,
        gaps=facts.gaps,
    )


def _show_view(view: View) -> ViewStatus:
    joiner = None if view.joiner == NO_DISK else view.joiner.hex()
    return ViewStatus(view.number, joiner, {node: disk.hex() for node, disk in view.disks.items()})


def show_peers(links: Mapping[str, Link], connected: Mapping[str, NodeFacts]) -> dict[str, PeerStatus]:
    """``connected`` has the nodes from which there is a connection to this one."""
    return {
        node: PeerStatus(
            address=str(link.address),
            up=link.up,
            error=link.last_error,
            connected=node in connected,
            facts=None if link.facts is None else show_facts(link.facts),
        )
        for node, link in links.items()
    }
