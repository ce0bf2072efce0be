"""What a node says of itself and its peers: the body of /health, made from facts and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from quorumvault.api.health import Health, PeerHealth, QuorumHealth
from quorumvault.model import QUORUM
from quorumvault.peers.facts import NodeFacts
from quorumvault.peers.link import Link
from quorumvault.protocol.views import View, votes


def describe(mine: NodeFacts, view: View | None, links: Mapping[str, Link], problems: Iterable[str]) -> Health:
    """``view`` is the newest that this node knows; ``problems`` are this node's own, in words."""
    others = sum(link.up and _active(link.facts, view) for link in links.values())
    alone = not any(link.up for link in links.values())
    # Until another one is there nobody is established; what a node lacks then is their voices and not its own.
    reachable = others + _active(msgspec.structs.replace(mine, established=mine.established or alone), view)
    warnings = [*problems, *_differences(mine, links)]
    status: Literal["ok", "degraded", "unavailable"] = "ok"
    if reachable < QUORUM:
        status = "unavailable"
    elif reachable <= len(links) or warnings:
        status = "degraded"
    return Health(
        status=status,
        node=mine.node,
        state=mine.mode.value,
        quorum=QuorumHealth(reachable),
        peers={node: _peer(link) for node, link in links.items()},
        warnings=warnings,
        version=mine.version,
    )


def _active(facts: NodeFacts | None, view: View | None) -> bool:
    if facts is None or view is None:
        return False
    return facts.established and view.lists(facts.disk) and votes(facts.disk, facts.mode, facts.view)


def _peer(link: Link) -> PeerHealth:
    state = link.facts.mode.value if link.facts else None
    return PeerHealth("up", state) if link.up else PeerHealth("down", state)


def _differences(mine: NodeFacts, links: Mapping[str, Link]) -> list[str]:
    warnings = []
    for node, link in links.items():
        theirs = link.facts
        if not link.up or theirs is None:
            warnings += [f"{node} is down: {link.last_error}"] if link.last_error else []
            continue
        if theirs.fields != mine.fields:
            warnings.append(f"{node} has other fields")
        if theirs.keys != mine.keys:
            warnings.append(f"{node} has other API keys")
    return warnings
