"""What a node reports about itself: facts to its peers, /health to everyone, metrics to Prometheus."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Literal

import msgspec

from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import fingerprint
from quorumvault.model import QUORUM
from quorumvault.protocol.hinted_handoff import Owed
from quorumvault.protocol.join import Progress
from quorumvault.protocol.messages import PROTOCOL_VERSION
from quorumvault.protocol.views import Mode, View, votes
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.revocations import Revocations
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.http.admission import Admission, Phase
from quorumvault.server.http.health import Health, JoiningHealth, PeerHealth, QuorumHealth
from quorumvault.server.node.disk import LocalDisk
from quorumvault.server.node.membership import Membership
from quorumvault.server.node.reload import Reloads
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.standing import Standing
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.storage.free_space import FreeSpace
from quorumvault.server.telemetry.event_log import EventLog
from quorumvault.server.telemetry.metrics import DRAINING, FULL, Reading

VERSION = installed_version("quorumvault")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfReport:
    """``boot`` is a nonce of this start, ``fields`` a fingerprint; ``healer`` returns None while this node has no disk."""

    config: NodeConfig
    boot: bytes
    fields: str
    disk: LocalDisk
    membership: Membership
    standing: Standing
    marks: RollbackMarks
    healer: Callable[[], Healer | None]
    coordinator: Coordinator
    links: Mapping[str, Link]
    free_space: FreeSpace
    admission: Admission
    events: EventLog
    reloads: Reloads
    revocations: Revocations

    def facts(self) -> NodeFacts:
        """What peers hear in every greeting, ping and pong."""
        identity, cluster, healer = self.membership.identity, self.config.cluster, self.healer()
        return NodeFacts(
            cluster_id=cluster.cluster_id,
            protocol=PROTOCOL_VERSION,
            version=VERSION,
            node=self.config.node,
            disk=identity.disk,
            incarnation=identity.incarnation,
            mode=identity.mode,
            view=identity.view,
            secrets={cluster.secrets.master.id: fingerprint(self.config.master_secret)},
            fields=self.fields,
            keys=self.reloads.keys.fingerprint,
            boot=self.boot,
            established=self.standing.established and not self.disk.stalled,
            withdrawn=self.standing.withdrawn,
            full=self.free_space.full,
            damaged=healer is not None and healer.scrub.damage is not None,
            gaps=0 if self.disk.replica is None else self.disk.replica.gaps.count,
            sequence=0 if self.disk.replica is None else self.disk.replica.sequence,
            marks=dict(self.marks.known),
            keeps=identity.mode is Mode.JOINING and self.disk.keeps_old,
        )

    def health(self) -> Health:
        """The body of /health."""
        facts, view, problems = self.facts(), self.coordinator.view, filter(None, self._problems())
        health = describe(facts, view, self.links, problems, self._owed(), self.membership.progress)
        if self.events.refuses or not self.revocations.known:
            health = msgspec.structs.replace(health, status="unavailable")
        return health if self.admission.phase is Phase.SERVING else msgspec.structs.replace(health, state=DRAINING)

    def reading(self) -> Reading:
        """The gauges of /metrics."""
        health, healer, admission, now = self.health(), self.healer(), self.admission, self.reloads.now()
        replica = self.disk.replica
        present = PresentKeys() if replica is None else replica.present
        return Reading(
            state=health.state,
            reachable=health.quorum.reachable,
            peers_up={node: link.up for node, link in self.links.items()},
            damaged={facts.node: facts.damaged for facts in self._known_facts()},
            gaps={facts.node: facts.gaps for facts in self._known_facts()},
            in_flight=admission.in_flight,
            disk_free=self.free_space.bytes,
            owed=self._owed(),
            scrub=ScrubCounts() if healer is None else healer.scrub.counts,
            joining=self.membership.progress,
            reload_failed=self.reloads.problem is not None,
            certificates={use: (ends - now).total_seconds() for use, ends in self.reloads.credentials.ends().items()},
            api_keys={
                key.id: key.expires - now.timestamp() for key in self.reloads.keys.by_id().values() if key.expires is not None
            },
            revoked_keys=len(self.revocations.ids),
            memory=admission.memory.held,
            filter_bytes=present.bytes,
            spared=present.spared,
            looked_up=present.looked_up,
            cache_hits=0 if replica is None else replica.reader.cache.hits,
            cache_misses=0 if replica is None else replica.reader.cache.misses,
            records=0 if replica is None else replica.inventory.sums.records,
            store_bytes=self.free_space.stored,
            reloads=self.reloads.counts,
            log_failures=self.events.troubles,
            log_lost=self.events.lost,
            build=(VERSION, platform.python_version()),
        )

    def _known_facts(self) -> list[NodeFacts]:
        """This node's, and those that its peers told last."""
        return [self.facts(), *(link.facts for link in self.links.values() if link.facts is not None)]

    def _problems(self) -> Iterator[str | None]:
        healer = self.healer()
        joining = self.membership.progress
        yield self.disk.problem
        yield None if joining is None or joining.advice is None else f"its new disk waits: {joining.waits_for}. {joining.advice}"
        yield "its disk has not ended a write for long: it answers nothing as a replica" if self.disk.stalled else None
        yield None if healer is None else healer.scrub.problem
        yield None if self.disk.replica is None else _gaps_problem("this node", self.disk.replica.gaps.count)
        yield self.free_space.problem
        yield self.events.problem
        yield self.reloads.problem
        yield None if self.revocations.known else "it could not ask two nodes which API keys are revoked: it takes none"
        yield self.revocations.problem
        yield from self.reloads.credentials.problems(self.reloads.now())

    def _owed(self) -> dict[str, Owed]:
        healer = self.healer()
        return {node: Owed(0, 0.0) if healer is None else healer.handoff.owed(node) for node in self.links}


def describe(
    mine: NodeFacts,
    view: View | None,
    links: Mapping[str, Link],
    problems: Iterable[str],
    owed: Mapping[str, Owed],
    joining: Progress | None,
) -> Health:
    """Returns the body of /health. ``view`` is the newest view that this node knows, ``problems`` its own problems in words,
    ``owed`` the records that each peer lacks, ``joining`` the progress of a joining disk."""
    others = sum(link.up and is_active(link.facts, view) for link in links.values())
    alone = not any(link.up for link in links.values())
    # While no peer is reachable no node is established; then a node lacks its peers' votes, not its own.
    reachable = others + is_active(msgspec.structs.replace(mine, established=mine.established or alone), view)
    warnings = [*problems, *_differences(mine, links)]
    status: Literal["ok", "degraded", "unavailable"] = "ok"
    if reachable < QUORUM or mine.withdrawn:
        status = "unavailable"
    elif reachable <= len(links) or warnings:
        status = "degraded"
    return Health(
        status=status,
        node=mine.node,
        state=_state(mine),
        quorum=QuorumHealth(reachable),
        peers={node: _peer(link, owed[node]) for node, link in links.items()},
        warnings=warnings,
        version=mine.version,
        joining=msgspec.UNSET if joining is None else msgspec.convert(joining, JoiningHealth, from_attributes=True),
        keys=mine.keys,
        damaged=mine.damaged or mine.gaps > 0 or msgspec.UNSET,
    )


def is_active(facts: NodeFacts | None, view: View | None) -> bool:
    """Returns whether a node with these facts votes in this view."""
    if facts is None or view is None:
        return False
    return facts.established and view.lists(facts.disk) and votes(facts.disk, facts.mode, facts.view)


def _state(facts: NodeFacts) -> str:
    if facts.withdrawn:
        return DRAINING
    return FULL if facts.full and facts.mode is Mode.ACTIVE else facts.mode.value


def _peer(link: Link, owed: Owed) -> PeerHealth:
    state = _state(link.facts) if link.facts else None
    return PeerHealth("up" if link.up else "down", state, owed.records, round(owed.seconds, 1))


def _gaps_problem(node: str, gaps: int) -> str | None:
    if not gaps:
        return None
    return (
        f"{node} does not know what it had in {gaps} {'part' if gaps == 1 else 'parts'} of its store, which could not be read: "
        f"there it says unknown for what it lacks, until it has been compared with both others"
    )


def _differences(mine: NodeFacts, links: Mapping[str, Link]) -> list[str]:
    warnings = ["this process votes no more, and is about to stop"] if mine.withdrawn else []
    for node, link in links.items():
        theirs = link.facts
        if not link.up or theirs is None:
            warnings += [f"{node} is down: {link.last_error}"] if link.last_error else []
            continue
        if theirs.damaged:
            warnings.append(f"the store of {node} is damaged")
        warnings += filter(None, [_gaps_problem(node, theirs.gaps)])
        if theirs.full:
            warnings.append(f"{node} refuses writes: disk full")
        if theirs.fields != mine.fields:
            warnings.append(f"{node} has other fields")
        if theirs.keys != mine.keys:
            warnings.append(f"{node} has other API keys")
    return warnings
