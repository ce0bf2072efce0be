"""Configuration: YAML into frozen records. Limits and deadlines are in limits.py.

An unknown key, a bad value or an unreadable secret is a ConfigError of one line: file, key, what was expected.
Precedence: flag, then QUORUMVAULT_* variable, then file, then the default here.

    cluster.yaml --load_cluster--> Cluster      what all nodes share; no secret in it, so any command may have it
                 --load_place----> NodePlace    a Cluster, and which of its nodes this one is
                 --load_node-----> NodeConfig   the same, and the secret (master.py)
"""

import operator
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from quorumvault.config import tls
from quorumvault.config.addresses import Endpoints, NodeAddress, parse_endpoints
from quorumvault.config.build import build
from quorumvault.config.credentials import is_credential, located
from quorumvault.config.limits import (
    BytesOnDisk,
    Count,
    KiB,
    Limits,
    LongSeconds,
    MiB,
    Seconds,
    SecondsOrNone,
    Timeouts,
    at_least,
)
from quorumvault.config.master import MasterSecret, read_master
from quorumvault.config.secrets import FilePath
from quorumvault.config.tampering import guarded
from quorumvault.crypto.keys import Secret
from quorumvault.errors import ConfigError
from quorumvault.formats.yaml import parse_yaml, read_yaml
from quorumvault.model import NODE_NAMES


class StartupSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node does when it starts before the machine around it has."""

    #: Seconds until the names at which a node listens resolve and its addresses are there. At boot that takes some seconds;
    #: after half a minute, the operator should see the failure.
    wait: SecondsOrNone = 30.0


class HealingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of healing, by which a node keeps three replicas the same."""

    #: Most records that one peer missed for which hints are kept, 20 bytes each: 40 MB, an hour of 500 new tokens a second.
    #: Beyond this everything is compared instead, which at that size costs no more.
    hints: Count = 2_000_000
    #: Seconds between two comparisons with a peer. One without differences moves some kilobytes; others find what handoff lost.
    anti_entropy: Seconds = 300.0
    #: Seconds in which every record on disk is read and authenticated once: a day. Unnoticed rot may meet a second fault.
    scrub: LongSeconds = 86_400.0
    #: The share of a node's time that handoff, comparisons and the scrub may each take; the rest is for clients.
    share: Annotated[float, Meta(ge=0.01, le=1, description="a number from 0.01 to 1")] = 0.6


OnFailure = Literal["continue", "refuse"]
Reads = Literal["settled", "quorum"]


class EventLogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rotation of events.jsonl, and what happens when its disk is slow or full."""

    #: A file is renamed when it would grow beyond this.
    file_bytes: Annotated[int, at_least(64 * KiB)] = 64 * MiB
    #: Rotated files kept beside the live one, whatever their age: 512 MiB.
    keep: Count = 8
    #: Days in which no rotated file is removed, even if there are more than ``keep``: a month, so that an operator who was away
    #: can see what was done. Otherwise a caller with many requests would decide how soon other callers' lines are removed.
    keep_days: Annotated[float, Meta(ge=0, le=36_525, description="a number of days, from 0 to 36525")] = 30.0
    #: The size of all files together, including the live one. Beyond this the oldest of those over ``keep`` are removed, whatever
    #: their age: after 14 million requests at 300 bytes each. So they are if the disk has too little room left (event_file.py).
    most_bytes: BytesOnDisk = 4096 * MiB
    #: Events that wait for the disk, some 300 bytes each; beyond this they are lost, counted, and the count is logged.
    queue: Count = 16_384
    #: A request waits this long for its line to be written; then its answer leaves, and the line follows when it can.
    patience: Seconds = 1.0
    #: A log that could not be written is tried again this often.
    retry: Seconds = 1.0
    #: While the log cannot be written, requests go on without their lines, or are refused (503). Refuse if disclosing a value
    #: without a line is worse than not disclosing it.
    on_failure: Annotated[OnFailure, Meta(description="one of continue, refuse")] = "continue"


LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = typing.get_args(LogLevel)


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``master`` makes tokens and seals. ``cluster`` is ignored: version 0.1 had that file."""

    master: MasterSecret
    cluster: FilePath | None = None


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """cluster.yaml, as it is written."""

    cluster_id: Annotated[str, Meta(pattern=r"\A[!-~]{1,64}\Z", description="1 to 64 visible ASCII characters")]
    nodes: dict[str, NodeAddress]
    secrets: Secrets
    api: tls.ApiSettings = tls.ApiSettings()
    peers: tls.PeerSettings = tls.PeerSettings()
    fields: FilePath = "fields.yaml"
    api_keys: FilePath = "api_keys.yaml"
    data: FilePath = "."
    log_level: Annotated[LogLevel, Meta(description="one of debug, info, warning, error")] = "info"
    #: Whether a node that knows that a record is on two disks returns its value alone, or asks a second node for every value.
    reads: Annotated[Reads, Meta(description="one of settled, quorum")] = "settled"
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    startup: StartupSettings = StartupSettings()
    healing: HealingSettings = HealingSettings()
    events: EventLogSettings = EventLogSettings()


#: Pairs in which the first must be less than the second: values that are each valid may together make a node that cannot work.
_ORDERED: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("limits.value_bytes", operator.lt, "limits.reply_bytes"),  # else the largest value could never be read back
    ("limits.reply_bytes", operator.lt, "limits.frame_bytes"),
    ("limits.copy_bytes", operator.lt, "limits.frame_bytes"),
    ("limits.body_bytes", operator.lt, "limits.frame_bytes"),
    ("limits.body_bytes", operator.lt, "limits.memory_bytes"),
    ("limits.answer_bytes", operator.lt, "limits.memory_bytes"),
    ("limits.value_bytes", operator.lt, "limits.answer_bytes"),  # else the largest value could never be told
    ("limits.frame_bytes", operator.le, "limits.peer_queue_bytes"),
    ("limits.frame_bytes", operator.le, "limits.storage_queue_bytes"),
    ("timeouts.hedge", operator.lt, "timeouts.round"),
    ("timeouts.round", operator.le, "timeouts.request"),
    ("timeouts.ping", operator.lt, "timeouts.silence"),  # else every idle link would count as down
    ("timeouts.reconnect_first", operator.le, "timeouts.reconnect_last"),
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The content of cluster.yaml, checked. Paths are absolute."""

    file: Path
    cluster_id: str
    nodes: Mapping[str, Endpoints]
    data: Path
    fields: Path
    api_keys: Path
    secrets: Secrets
    api: tls.ApiSettings
    peers: tls.PeerSettings
    log_level: LogLevel
    reads: Reads
    limits: Limits
    timeouts: Timeouts
    startup: StartupSettings
    healing: HealingSettings
    events: EventLogSettings

    def data_directory(self, node: str) -> Path:
        return self.data / node

    def shared_files(self, *, carried: bool = False) -> Iterator[tuple[str, Path]]:
        """Return the files that all nodes have, each with the key of cluster.yaml that names it. Raises ConfigError.

        ``carried``: without those of a host's credential directory, which stay there.
        """
        yield "", self.file
        yield "fields", self.fields
        yield "api_keys", self.api_keys
        if (file := self.secrets.master.file) is not None:
            yield from self._located([("secrets.master.file", file)], carried=carried)

    def tls_files(self, node: str, *, carried: bool = False) -> Iterator[tuple[str, Path]]:
        """Return the files of TLS that this node reads, likewise. The key of the CA is none of them."""
        return self._located(tls.named_files(self.api, self.peers, node, self.file.parent), carried=carried)

    def _located(self, named: Iterable[tuple[str, str]], *, carried: bool) -> Iterator[tuple[str, Path]]:
        for key, file in named:
            if not (carried and is_credential(file)):
                yield key, located(self.file, key, file)

    def of_hosts(self, node: str) -> list[str]:
        """Return the keys of what this node reads but cluster.yaml does not carry: its host has it, or a service that it asks."""
        carried = dict(self.shared_files(carried=True)) | dict(self.tls_files(node, carried=True))
        named = tls.named_files(self.api, self.peers, node, self.file.parent)
        return [key for key in (self.secrets.master.source, *(key for key, _ in named)) if key not in carried]

    @property
    def api_ca(self) -> Path | None:
        """The CA that clients on this machine must trust; None for plain HTTP, or if the system or the caller knows the CA."""
        return self.file.parent / tls.OWN_CA if self.api.certificate == tls.OWN_CERTIFICATE else None

    def api_urls(self) -> dict[str, str]:
        """Node to the URL of its API."""
        return {node: f"{self.api.scheme}://{endpoints.api}" for node, endpoints in self.nodes.items()}


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Which node of which cluster: everything that a node is started with, except the secret."""

    cluster: Cluster
    node: str

    @property
    def endpoints(self) -> Endpoints:
        return self.cluster.nodes[self.node]

    @property
    def peers(self) -> dict[str, Endpoints]:
        return {node: endpoints for node, endpoints in self.cluster.nodes.items() if node != self.node}

    @property
    def data_directory(self) -> Path:
        return self.cluster.data_directory(self.node)

    def require_guarded(self) -> None:
        """Raises ConfigError that names the first file of this node's configuration, or its folder, that others can change."""
        for _, path in self.cluster.shared_files():
            guarded(path)
        for _, path in self.cluster.tls_files(self.node):
            if path.exists():  # else the code that reads it says what to do
                guarded(path)


@dataclass(frozen=True, slots=True)
class NodeConfig(NodePlace):
    """Everything that one node is started with."""

    master_secret: Secret = field(repr=False)


def load_place(path: Path, node: str) -> NodePlace:
    """Load the configuration of one node from the cluster.yaml ``path``; no secret is read. Raises ConfigError."""
    cluster = load_cluster(path)
    if node not in cluster.nodes:
        raise ConfigError(cluster.file, "nodes", f"no node {node!r} in this cluster; expected one of {', '.join(NODE_NAMES)}")
    return NodePlace(cluster, node)


def load_node(path: Path, node: str) -> NodeConfig:
    """Load the configuration of one node, and the secret, which may run a command. Raises ConfigError."""
    return with_secret(load_place(path, node))[0]


def with_secret(*places: NodePlace) -> list[NodeConfig]:
    """Return nodes of one cluster with its secret, which is read once: a descriptor has it only once. Raises ConfigError."""
    cluster = places[0].cluster
    secret = read_master(cluster.file, cluster.secrets.master, cluster.timeouts.secret)
    return [NodeConfig(cluster, place.node, secret) for place in places]


def load_cluster(path: Path) -> Cluster:
    """Read and check cluster.yaml; no secret file is opened. Raises ConfigError."""
    file = path.absolute()
    return parse_cluster(file, read_yaml(file))


def parse_cluster(file: Path, text: str) -> Cluster:
    """Parse ``text`` as the cluster.yaml ``file``, an absolute path, which need not exist yet. Raises ConfigError."""
    settings = build(file, "", parse_yaml(file, text), ClusterFile)
    _check_order(file, settings)
    settings.secrets.master.require_one_source(file)
    base = file.parent
    return Cluster(
        file=file,
        cluster_id=settings.cluster_id,
        nodes=parse_endpoints(file, settings.nodes),
        data=base / settings.data,
        fields=base / settings.fields,
        api_keys=base / settings.api_keys,
        secrets=settings.secrets,
        api=settings.api,
        peers=settings.peers,
        log_level=settings.log_level,
        reads=settings.reads,
        limits=settings.limits,
        timeouts=settings.timeouts,
        startup=settings.startup,
        healing=settings.healing,
        events=settings.events,
    )


def _check_order(file: Path, settings: ClusterFile) -> None:
    for small, holds, large in _ORDERED:
        low, high = operator.attrgetter(small, large)(settings)
        if not holds(low, high):
            least = "more than" if holds is operator.lt else "at least"
            raise ConfigError(file, large, f"expected {least} {small}, which is {low:g}; it is {high:g}")
