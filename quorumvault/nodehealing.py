"""What a node does with its healing: how its peers are, and what came of it, for operators."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quorumvault.admin.bodies import PeerDifferences, PeerRepair, Repaired, Verified
from quorumvault.healing.asking import NoAnswer
from quorumvault.healing.healer import Healer
from quorumvault.healing.scrub import Neighbours
from quorumvault.nodehealth import is_active
from quorumvault.peers.link import Link
from quorumvault.protocol.antientropy import CannotCompare, Compared
from quorumvault.protocol.views import View

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
