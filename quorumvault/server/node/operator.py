"""The requests that an operator can make of a running node, through its administrative socket.

Rules kept here: what is not known is not absent.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from quorumvault.errors import Invalid, Refused
from quorumvault.protocol.anti_entropy import CannotCompare, Compared
from quorumvault.protocol.messages import KeyId
from quorumvault.protocol.views import Mode, View
from quorumvault.server.backup.take import Backups
from quorumvault.server.coordinator.revocations import Revocations
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.requests import NoAnswer
from quorumvault.server.healing.scrub import Neighbours
from quorumvault.server.http.admin.routes import Controls
from quorumvault.server.http.admin.schemas import (
    NodeStatus,
    PeerDifferences,
    PeerRepair,
    Repaired,
    RevokedKey,
    RevokedKeys,
    Verified,
)
from quorumvault.server.http.admin.status import show_facts, show_peers
from quorumvault.server.node.health import SelfReport, is_active
from quorumvault.server.node.reload import Reloads
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.server import PeerServer

_UNITE = "stop all nodes and type quorumvault recover, which reads it; or move it away if it has nothing that anybody needs"
_NO_DISK = "this node has no disk that could be compared"
#: How the node's log and event log name who asked.
_SOCKET = "the administrative socket"


def neighbours(links: Mapping[str, Link], view: View | None) -> Neighbours:
    """The facts about its peers that a node needs before it gives up its disk."""
    damaged = frozenset(node for node, link in links.items() if link.up and link.facts is not None and link.facts.damaged)
    active = [link.up and is_active(link.facts, view) for link in links.values()]
    return Neighbours(all(active), damaged, any(active) and any(map(_is_joining, links.values())))


@dataclass(frozen=True, slots=True)
class Operator:
    """The verbs of one node. ``healer`` returns None while the node has no disk; ``stop`` takes who asked for it."""

    report: SelfReport
    healer: Callable[[], Healer | None]
    peer_server: PeerServer
    reloads: Reloads
    backups: Backups
    revocations: Revocations
    stop: Callable[[str], None]

    def controls(self) -> Controls:
        reload, stop = partial(self.reloads.reload, _SOCKET), partial(self.stop, _SOCKET)
        return Controls(self.status, reload, stop, self.repair, self.verify, self.backups.take, self.revoke, self.revoked_keys)

    def status(self) -> NodeStatus:
        report, config, endpoints = self.report, self.report.config, self.report.config.endpoints
        replica = report.disk.replica
        return NodeStatus(
            node=config.node,
            pid=os.getpid(),
            api=str(endpoints.listen_api),
            peer=str(endpoints.listen_peer),
            data=str(config.data_directory),
            facts=show_facts(report.facts()),
            sequence=None if replica is None else replica.sequence,
            health=report.health(),
            peers=show_peers(report.links, self.peer_server.connected),
            in_flight=report.admission.in_flight,
            limits=config.cluster.limits,
            timeouts=config.cluster.timeouts,
        )

    async def repair(self, accept_loss: bool) -> Repaired:
        """Compare with all peers now, and repair differences. ``accept_loss``: records that this node still does not know then
        are absent. That is refused while a peer may still have them.
        """
        healer, node = self.healer(), self.report.config.node
        if healer is None:
            return Repaired(node, {peer: PeerRepair(problem=_NO_DISK) for peer in self.report.links})
        outcomes = await healer.anti_entropy.repair()
        given_up, refusal = 0, None
        if accept_loss and self.report.facts().gaps:
            refusal = could_tell(outcomes, self.report.links)
            if refusal is None:
                whole = all(isinstance(outcome, Compared) for outcome in outcomes.values())
                try:
                    given_up = await healer.anti_entropy.give_up_gaps(read_first=whole)
                except (NoAnswer, CannotCompare) as error:
                    refusal = f"what the two others have could not be read once more: {error}. Repeat the command"
        left = self.report.facts().gaps
        return Repaired(node, {peer: _repair_of(outcome) for peer, outcome in outcomes.items()}, left, given_up, refusal)

    async def revoke(self, key_id: str) -> RevokedKey:
        """Revoke the API key with this id in the whole cluster. Raises Invalid, NoQuorum."""
        try:
            await self.revocations.revoke(msgspec.convert(key_id, KeyId))
        except msgspec.ValidationError:
            raise Invalid("that is no id of an API key; `quorumvault keys list` shows the ids") from None
        except Refused as refused:
            raise Invalid(str(refused)) from None
        return RevokedKey(key_id, self.report.config.node)

    def revoked_keys(self) -> RevokedKeys:
        return RevokedKeys(self.report.config.node, sorted(self.revocations.ids), self.revocations.known)

    async def verify(self) -> Verified:
        """Compare with all peers now, record by record, and repair nothing."""
        healer = self.healer()
        found: dict[str, PeerDifferences] = {}
        for peer in self.report.links:
            try:
                if healer is None:
                    raise NoAnswer(_NO_DISK)
                differences = await healer.anti_entropy.verify(peer)
            except (NoAnswer, CannotCompare) as error:
                found[peer] = PeerDifferences(problem=str(error))
            else:
                found[peer] = msgspec.convert(differences, PeerDifferences, from_attributes=True)
        return Verified(self.report.config.node, found)


def could_tell(outcomes: Mapping[str, Compared | str], links: Mapping[str, Link]) -> str | None:
    """Why nothing may be given up yet, and what to do: a peer was not compared that may tell. None if there is no such peer.

    A peer whose disk is joining has nothing to tell. If no peer at all was compared, none is excused.
    """
    any_told = any(isinstance(outcome, Compared) for outcome in outcomes.values())
    for peer, outcome in outcomes.items():
        facts = links[peer].facts
        if isinstance(outcome, Compared):
            continue
        if facts is not None and facts.keeps:
            return f"{peer} keeps a store that it does not use, and which may have what this node does not know: {_UNITE}"
        if not (any_told and _is_joining(links[peer])):
            return (
                f"{peer} was not compared, and may have what this node does not know. See that {peer} runs and is active, and "
                f"repeat the command. If its disk is lost for good, start it with an empty data directory: then it has nothing"
            )
    return None


def _is_joining(link: Link) -> bool:
    return link.up and link.facts is not None and link.facts.mode is Mode.JOINING


def _repair_of(outcome: Compared | str) -> PeerRepair:
    if isinstance(outcome, str):
        return PeerRepair(problem=outcome)
    return msgspec.convert(outcome, PeerRepair, from_attributes=True)
