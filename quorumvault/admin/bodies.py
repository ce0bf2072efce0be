"""What is answered on the administrative socket, as types: for both ends of it."""

from __future__ import annotations

import msgspec

from quorumvault.api.health import Health
from quorumvault.config import Limits, Timeouts


class ViewStatus(msgspec.Struct, frozen=True):
    """``joiner``: the disk that brought the view about; None for the first one. Disks in hexadecimal."""

    number: int
    joiner: str | None
    disks: dict[str, str]


class FactsStatus(msgspec.Struct, frozen=True):
    """What a node says of itself. ``secrets`` (by id), ``fields`` and ``keys`` are fingerprints."""

    version: str
    disk: str
    incarnation: int
    mode: str
    established: bool
    view: ViewStatus | None
    secrets: dict[str, str]
    fields: str
    keys: str


class PeerStatus(msgspec.Struct, frozen=True):
    """``up``: this node reaches the peer; ``error``: why not. ``connected``: the peer reaches this node.

    ``facts`` are those that the peer told last, None if it never did.
    """

    address: str
    up: bool
    error: str | None
    connected: bool
    facts: FactsStatus | None


class NodeStatus(msgspec.Struct, frozen=True):
    """How a node is, in depth: its operator may see more than GET /health tells everybody.

    ``sequence`` counts the writes of the disk, None without one; ``data`` is the data directory.
    """

    node: str
    pid: int
    api: str
    peer: str
    data: str
    facts: FactsStatus
    sequence: int | None
    health: Health
    peers: dict[str, PeerStatus]
    in_flight: int
    limits: Limits
    timeouts: Timeouts


class Reloaded(msgspec.Struct, frozen=True):
    """What was read again and is in force, and what stays as it was because of an error, which is told."""

    read: list[str]
    refused: dict[str, str]


class Stopping(msgspec.Struct, frozen=True):
    """The node drains, and its process ends."""

    stopping: bool = True
