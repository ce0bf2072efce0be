"""What is answered on the administrative socket, as types: for both ends of it."""

from __future__ import annotations

import msgspec

from quorumvault.config.cluster import Limits, Timeouts
from quorumvault.server.http.health import Health


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


class PeerRepair(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a comparison with one peer came to: ``buckets`` of 65,536 that differed at last, records ``taken`` from it and
    ``given`` to it, registers ``raised`` on either side, buckets that are ``unreadable`` on one; or the ``problem`` that kept it
    from being made."""

    buckets: int = 0
    taken: int = 0
    given: int = 0
    raised: int = 0
    unreadable: int = 0
    problem: str | None = None


class Repaired(msgspec.Struct, frozen=True):
    """This node was compared with each of its peers, and what differed was mended."""

    node: str
    peers: dict[str, PeerRepair]


class PeerDifferences(msgspec.Struct, frozen=True, omit_defaults=True):
    """What differs between this node and one peer: ``records`` compared, those that one of the two alone has, those that
    are not the same, registers, buckets that cannot be read; or the ``problem`` that kept it from being found out."""

    records: int = 0
    only_here: int = 0
    only_there: int = 0
    unequal: int = 0
    registers: int = 0
    unreadable: int = 0
    problem: str | None = None

    @property
    def identical(self) -> bool:
        return self == PeerDifferences(self.records)


class Verified(msgspec.Struct, frozen=True):
    """This node was compared with each of its peers, record by record, and nothing was changed."""

    node: str
    peers: dict[str, PeerDifferences]


class Stopping(msgspec.Struct, frozen=True):
    """The node drains, and its process ends."""

    stopping: bool = True
