"""The health of a node: the body of /health and /readyz, filled in by the node. It says nothing about owners or their values."""

from typing import Literal

import msgspec

from quorumvault.model import QUORUM


class QuorumHealth(msgspec.Struct, frozen=True):
    """``reachable`` counts active replicas, including this node's own."""

    reachable: int
    needed: int = QUORUM


class PeerHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """A peer as this node sees it. ``state`` is what the peer last said of itself, absent if this node never heard from it.

    ``owed_records`` counts the records that this node committed and that the peer has neither acknowledged nor been handed since.
    ``owed_seconds`` is the age of the oldest of them. Both are absent if there are none.
    """

    status: Literal["up", "down"]
    state: str | None = None
    owed_records: int = 0
    owed_seconds: float = 0.0


class JoiningHealth(msgspec.Struct, frozen=True):
    """The progress of a joining disk.

    ``records`` counts the records that it has copied, from both other nodes; ``expected`` is about how many it will copy in all.
    ``source`` is the node that it copies from. ``waits_for`` says, in words, what it waits for if it cannot go on.
    """

    records: int
    expected: int | None
    source: str | None
    waits_for: str | None


class Health(msgspec.Struct, frozen=True):
    """``ok``: all replicas are reachable and there is no warning. ``degraded``: a quorum is reachable. ``unavailable``: none is.

    ``joining`` is present while this node's disk is becoming a replica. ``keys`` is the fingerprint of the API keys in force;
    nodes whose key files differ have different fingerprints. ``damaged`` is present, and true, if this node cannot read all of
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
