"""What a node says of itself and its peers: the body of /health, made from facts and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from quorumvault.model import QUORUM
from quorumvault.protocol.views import Mode, View, votes
from quorumvault.server.healing.hinted_handoff import Owed
from quorumvault.server.healing.join import Progress
from quorumvault.server.http.health import Health, JoiningHealth, PeerHealth, QuorumHealth
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.telemetry.metrics import FULL


def describe(
    mine: NodeFacts,
    view: View | None,
    links: Mapping[str, Link],
    problems: Iterable[str],
    owed: Mapping[str, Owed],
    joining: Progress | None,
) -> Health:
    """``view`` is the newest that this node knows; ``problems`` are this node's own, in words; ``owed`` by peer what it lacks;
    ``joining``, how far its disk is if it is joining."""
    others = sum(link.up and is_active(link.facts, view) for link in links.values())
    alone = not any(link.up for link in links.values())
    # Until another one is there nobody is established; what a node lacks then is their voices and not its own.
    reachable = others + is_active(msgspec.structs.replace(mine, established=mine.established or alone), view)
    warnings = [*problems, *_differences(mine, links)]
    status: Literal["ok", "degraded", "unavailable"] = "ok"
    if reachable < QUORUM:
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
        joining=msgspec.UNSET if joining is None else _joining(joining),
        keys=mine.keys,
    )


def is_active(facts: NodeFacts | None, view: View | None) -> bool:
    """Whether a node with these facts votes in this view."""
    if facts is None or view is None:
        return False
    return facts.established and view.lists(facts.disk) and votes(facts.disk, facts.mode, facts.view)


def _state(facts: NodeFacts) -> str:
    return FULL if facts.full and facts.mode is Mode.ACTIVE else facts.mode.value


def _joining(progress: Progress) -> JoiningHealth:
    return JoiningHealth(progress.records, progress.expected, progress.source, progress.waits_for)


def _peer(link: Link, owed: Owed) -> PeerHealth:
    state = _state(link.facts) if link.facts else None
    return PeerHealth("up" if link.up else "down", state, owed.records, round(owed.seconds, 1))


def _differences(mine: NodeFacts, links: Mapping[str, Link]) -> list[str]:
    warnings = []
    for node, link in links.items():
        theirs = link.facts
        if not link.up or theirs is None:
            warnings += [f"{node} is down: {link.last_error}"] if link.last_error else []
            continue
        if theirs.full:
            warnings.append(f"{node} refuses writes: disk full")
        if theirs.fields != mine.fields:
            warnings.append(f"{node} has other fields")
        if theirs.keys != mine.keys:
            warnings.append(f"{node} has other API keys")
    return warnings
