"""How a node is: the body of /health and /readyz. The node fills it in; nothing in it is about owners or their values."""

from __future__ import annotations

from typing import Literal

import msgspec

from quorumvault.model import QUORUM


class QuorumHealth(msgspec.Struct, frozen=True):
    """``reachable`` counts active replicas, this node's own included."""

    reachable: int
    needed: int = QUORUM


class PeerHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer as this node sees it. ``state`` is what the peer last said of itself, absent if it was never heard."""

    status: Literal["up", "down"]
    state: str | None = None


class Health(msgspec.Struct, frozen=True):
    """``ok``: all replicas are reachable and there is no warning; ``degraded``: a quorum is; ``unavailable``: none."""

    status: Literal["ok", "degraded", "unavailable"]
    node: str
    state: str
    quorum: QuorumHealth
    peers: dict[str, PeerHealth]
    warnings: list[str]
    version: str
