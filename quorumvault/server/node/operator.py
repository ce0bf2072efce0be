"""What a node does with its healing: how its peers are, and what came of it, for operators."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quorumvault.protocol.anti_entropy import CannotCompare, Compared
from quorumvault.protocol.views import View
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.requests import NoAnswer
from quorumvault.server.healing.scrub import Neighbours
from quorumvault.server.http.admin.schemas import PeerDifferences, PeerRepair, Repaired, Verified
from quorumvault.server.node.health import is_active
from quorumvault.server.peers.link import Link

_NO_DISK = "this node has no disk that could be compared"


def neighbours(links: Mapping[str, Link], view: View | None) -> Neighbours:
    """How the peers are, as far as a node that thinks of giving up its disk has to know."""
    damaged = frozenset(node for node, link in links.items() if link.up and link.facts is not None and link.facts.damaged)
    return Neighbours(all(link.up and is_active(link.facts, view) for link in links.values()), damaged)


async def repair(healer: Healer | None, node: str, peers: Mapping[str, Link]) -> Repaired:
    """Compare with all peers and mend what differs, now."""
    if healer is None:
        return Repaired(node, {peer: PeerRepair(problem=_NO_DISK) for peer in peers})
    outcomes = await healer.anti_entropy.repair()
    return Repaired(node, {peer: _repair_of(outcome) for peer, outcome in outcomes.items()})


def _repair_of(outcome: Compared | str) -> PeerRepair:
    if isinstance(outcome, str):
        return PeerRepair(problem=outcome)
    return msgspec.convert(outcome, PeerRepair, from_attributes=True)


async def verify(healer: Healer | None, node: str, peers: Mapping[str, Link]) -> Verified:
    """Compare with all peers, record by record, and mend nothing."""
    found: dict[str, PeerDifferences] = {}
    for peer in peers:
        try:
            if healer is None:
                raise NoAnswer(_NO_DISK)
            differences = await healer.anti_entropy.verify(peer)
        except (NoAnswer, CannotCompare) as error:
            found[peer] = PeerDifferences(problem=str(error))
        else:
            found[peer] = msgspec.convert(differences, PeerDifferences, from_attributes=True)
    return Verified(node, found)
