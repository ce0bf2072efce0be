"""What a node tells its peers about itself: in the handshake, and again in every ping and pong."""

from __future__ import annotations

import msgspec

from quorumvault.protocol.views import Mode, View


class NodeFacts(msgspec.Struct, frozen=True):
    """``secrets`` maps each secret's id to its fingerprint; ``fields`` and ``keys`` are fingerprints of what those files mean."""

    cluster_id: str
    protocol: int
    version: str
    node: str
    disk: bytes
    incarnation: int
    mode: Mode
    view: View | None
    secrets: dict[str, str]
    fields: str
    keys: str
