"""The answers on the administrative socket, as types, for both of its ends."""

import msgspec

from quorumvault.config.limits import Limits, Timeouts
from quorumvault.server.http.health import Health


class ViewStatus(msgspec.Struct, frozen=True):
    """``joiner`` is the disk whose join made the view, None for the first view. Disks are in hexadecimal."""

    number: int
    joiner: str | None
    disks: dict[str, str]


class FactsStatus(msgspec.Struct, frozen=True):
    """The facts that a node tells about itself. ``secrets`` (by id), ``fields`` and ``keys`` are fingerprints.

    ``damaged``: its store cannot all be read; ``gaps``: the number of parts of which it does not know what it had there.
    """

    version: str
    disk: str
    incarnation: int
    mode: str
    established: bool
    view: ViewStatus | None
    secrets: dict[str, str]
    fields: str
    keys: str
    damaged: bool = False
    gaps: int = 0


class PeerStatus(msgspec.Struct, frozen=True):
    """``up`` says that this node reaches the peer, and ``error`` why not; ``connected`` says that the peer reaches this node.

    ``facts`` are the last that the peer told, None if it never did.
    """

    address: str
    up: bool
    error: str | None
    connected: bool
    facts: FactsStatus | None


class NodeStatus(msgspec.Struct, frozen=True):
    """The state of a node in detail: more than GET /health tells everybody.

    ``sequence`` counts the writes of the disk, None without a disk; ``data`` is the data directory.
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
    """The files that were read again and are in force, and those that stay as they were, each with the error."""

    read: list[str]
    refused: dict[str, str]


class RevokedKey(msgspec.Struct, frozen=True):
    """The API key with this id is revoked, on two disks. ``node`` was asked to."""

    key_id: str
    node: str


class RevokedKeys(msgspec.Struct, frozen=True):
    """The ids of the API keys that ``node`` knows to be revoked. ``current``: no more were before it last asked, a moment ago."""

    node: str
    ids: list[str]
    current: bool


class PeerRepair(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a comparison with one peer: ``buckets`` of 65,536 that differed, records ``taken`` from it and ``given``
    to it, registers ``raised`` on either side, buckets ``unreadable`` on one; or the ``problem`` that prevented it."""

    buckets: int = 0
    taken: int = 0
    given: int = 0
    raised: int = 0
    unreadable: int = 0
    problem: str | None = None


class Repaired(msgspec.Struct, frozen=True):
    """This node was compared with each of its peers, and the differences were mended.

    ``gaps``: the parts of its store of which it still does not know what it had; ``given_up``: those that it was told to forget;
    ``refusal``: why it did not, although it was told to.
    """

    node: str
    peers: dict[str, PeerRepair]
    gaps: int = 0
    given_up: int = 0
    refusal: str | None = None


class PeerDifferences(msgspec.Struct, frozen=True, omit_defaults=True):
    """The differences between this node and one peer: of the ``records`` compared those on one side only and the unequal ones;
    registers; unreadable buckets; or the ``problem`` that prevented the comparison."""

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
