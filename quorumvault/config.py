"""Configuration: YAML into frozen records, and every limit with its reason.

An unknown key, a bad value or an unreadable secret is a ConfigError of one line: file, key, what was expected.
Precedence: flag, then QUORUMVAULT_* variable, then file, then the default here.
"""

from __future__ import annotations

import msgspec

MiB = 1 << 20


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one node takes. Served (in part) by GET /limits."""

    #: Items of one request. Contract: at least 10,000; a batch this size holds the storage thread for tens of milliseconds.
    items: int = 10_000
    #: A request body. Contract: at least 16 MiB.
    body_bytes: int = 16 * MiB
    #: One value in canonical form less its type byte. Contract: 64 KiB.
    value_bytes: int = 64 * 1024
    #: HTTP requests under way at once in one node; more are refused with 429 before their body is read.
    in_flight: int = 64
    #: Their bodies together: bounds memory, since 64 full bodies would be a gigabyte.
    in_flight_bytes: int = 128 * MiB
    #: What a replica reads for one Get before it answers Overflow: 10,000 values of 64 KiB would be 640 MB.
    reply_bytes: int = 32 * MiB
    #: One frame between nodes: the largest body, sealed, with room for its envelope.
    frame_bytes: int = 48 * MiB
    #: Unsent bytes to one peer; beyond it the peer counts as unreachable for new messages.
    peer_queue_bytes: int = 64 * MiB
    #: Requests to one peer that wait for their reply; beyond it likewise.
    peer_in_flight: int = 4096
    #: Requests waiting for the storage thread: a bound that health never meets.
    storage_queue: int = 16_384
    #: Bytes of puts that share one sync: bounds the memory and the latency of a group commit.
    group_bytes: int = 8 * MiB


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In seconds, by the monotonic clock."""

    #: A client's request from its body's last byte to an answer, whatever it takes in rounds.
    request: float = 5.0
    #: One round. Long enough for a slow sync, short enough for two in a request.
    round: float = 2.0
    #: After this long without two answers a read asks the third replica too.
    hedge: float = 0.05
    #: From connect to the end of the handshake between nodes.
    handshake: float = 2.0
    #: A link that is idle sends a ping this often.
    ping: float = 0.5
    #: A link that heard nothing for this long is down: four pings lost, or a process stopped by SIGSTOP.
    silence: float = 2.0
    #: First and last wait before a link is dialled again; doubled in between, with jitter.
    reconnect_first: float = 0.05
    reconnect_last: float = 1.0
    #: After SIGTERM: /readyz fails for this long while requests are still served, so that balancers notice.
    drain_notice: float = 1.0
    #: Then new requests get 503 and those under way have this long to end.
    drain: float = 10.0


class EventLogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rotation of events.jsonl."""

    #: A file is renamed when it would grow beyond this.
    file_bytes: int = 64 * MiB
    #: Rotated files kept beside the live one.
    keep: int = 8


class NodeAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one node is reached, as HOST:PORT, and where it listens if that differs."""

    api: str
    peer: str
    listen_api: str | None = None
    listen_peer: str | None = None


class MasterSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id under which epochs remember the secret, and the file that has it."""

    id: str
    file: str


class SecretFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files, relative to cluster.yaml. ``cluster`` authenticates nodes to each other; ``master`` makes tokens and seals."""

    cluster: str
    master: MasterSecret


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """cluster.yaml, as it is written."""

    cluster_id: str
    nodes: dict[str, NodeAddress]
    secrets: SecretFiles
    fields: str = "fields.yaml"
    api_keys: str = "api_keys.yaml"
    data: str = "."
    log_level: str = "info"
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    events: EventLogSettings = EventLogSettings()
