"""The health of a node: the body of /health and /readyz. The node fills it in. It says nothing about owners or their values."""

from typing import Literal

import msgspec

from quorumvault.model import QUORUM


class QuorumHealth(msgspec.Struct, frozen=True):
    """``reachable`` counts active replicas, this node's own included."""

    reachable: int
    needed: int = QUORUM


class PeerHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer as this node sees it. ``state`` is what the peer last said of itself, absent if it was never heard.

    ``owed_records`` that this node committed the peer has not acknowledged and was not handed yet, the oldest of them since
    ``owed_seconds``; both are absent if there are none.
    """

    status: Literal["up", "down"]
    state: str | None = None
    owed_records: int = 0
    owed_seconds: float = 0.0


class JoiningHealth(msgspec.Struct, frozen=True):
    """How far a joining disk is: records that it copied, from both others, of about how many; the node that it copies from;
    and what it waits for, in words, if it cannot go on."""

    records: int
    expected: int | None
    source: str | None
    waits_for: str | None


class Health(msgspec.Struct, frozen=True):
    """``ok``: all replicas are reachable and there is no warning; ``degraded``: a quorum is; ``unavailable``: none.

    ``joining`` is there while this node's disk is on its way to become a replica. ``keys`` is the fingerprint of the API keys in
    force, which is another one on a node whose key file differs. ``damaged`` is there, and true, if this node cannot read all of
    its store.
    """

    status: Literal["ok", "degraded", "unavailable"]
    node: str
    state: str
    quorum: QuorumHealth
    peers: dict[str, PeerHealth]
    warnings: list[str]
    version: str
    joining: JoiningHealth | msgspec.UnsetType = msgspec.UNSET
    keys: str | msgspec.UnsetType = msgspec.UNSET
    damaged: bool | msgspec.UnsetType = msgspec.UNSET
