"""One node, put together from its configuration, run until it is told to stop, and stopped without harm.

                 HTTP                                            frames
    clients ────────────▶ api ──▶ Coordinator ──▶ Exchange ──┬────────▶ Link n2 ─ ─▶ PeerServer of n2
                                                             ├────────▶ Link n3
                                                             └▶ LocalPeer ─┐
    Links of n2, n3 ─ ─▶ PeerServer ────────────────────────────────────▶ GroupCommit ▶ Replica ▶ Store   (storage thread)

Exit codes of ``serve``: 0 stopped as asked, 1 configuration (ConfigError, RunsElsewhere), 3 storage (StorageFailed).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from random import SystemRandom

import msgspec

from quorumvault.admin import socket as admin_socket
from quorumvault.admin.app import Controls, create_admin_app
from quorumvault.admin.bodies import NodeStatus, Reloaded
from quorumvault.admin.status import show_facts, show_peers
from quorumvault.api.admission import Admission, Phase
from quorumvault.api.app import create_app
from quorumvault.api.health import Health
from quorumvault.api.services import Services
from quorumvault.config import NodeConfig, load_cluster
from quorumvault.coordinator import Coordinator, Identity
from quorumvault.crypto.keys import Keyring, fingerprint
from quorumvault.disk import lock_data_directory
from quorumvault.errors import ConfigError, RunsElsewhere
from quorumvault.events import FILE_NAME, Event, EventLog
from quorumvault.fields import load_fields
from quorumvault.freespace import FreeSpace
from quorumvault.groupcommit import GroupCommit
from quorumvault.httpserver import HttpServer, listening_socket
from quorumvault.keyfile import load_keys
from quorumvault.metrics import DRAINING, CountedRequests, Metrics, Reading
from quorumvault.nodedisk import NodeDisk, open_disk
from quorumvault.nodehealth import describe
from quorumvault.peers.claims import Claims
from quorumvault.peers.connection import LocalNode
from quorumvault.peers.facts import NodeFacts
from quorumvault.peers.handshake import ClusterSecret
from quorumvault.peers.link import Link
from quorumvault.peers.local import LocalPeer
from quorumvault.peers.peer import OnReply, Peer, Unreachable
from quorumvault.peers.server import PeerServer
from quorumvault.peers.standing import Standing
from quorumvault.protocol import records
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import PROTOCOL_VERSION, AnyRequest, NotVoting, Put
from quorumvault.replica import Replica
from quorumvault.storage.timed import TimedStore

logger = logging.getLogger("quorumvault.node")

#: Exit code for a store that cannot be trusted.
STORAGE_EXIT = 3
VERSION = installed_version("quorumvault")
#: Of the nonce of a start.
BOOT_BYTES = 8


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _request_id() -> str:
    return uuid.uuid4().hex


async def serve(config: NodeConfig) -> int:
    """Run one node until SIGTERM or SIGINT, then 0. Raises ConfigError, RunsElsewhere, StorageFailed."""
    config.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_data_directory(config.data_directory):
        node = Node(config, open_disk(config))
        await node.start()
        await node.stopping.wait()
        await node.stop()
        if node.taken is not None:
            raise RunsElsewhere(node.taken)
    return 0


@dataclass(frozen=True, slots=True)
class _Observer:
    """What the coordinator tells goes to the metrics, and to the event log if it is an event."""

    metrics: Metrics
    events: EventLog

    def read_repaired(self, node: str, records: int) -> None:
        self.metrics.read_repaired(records)
        self.events.note(Event(event="read_repair", peer=node, items=records, outcome="ok"))

    def fence_retried(self) -> None:
        self.metrics.fence_retried()

    def unacknowledged(self, node: str, records: int) -> None:
        self.metrics.unacknowledged(node, records)


class Node:
    """The composition root. Everything that a node is made of is made here, and passed what it needs."""

    def __init__(self, config: NodeConfig, disk: NodeDisk) -> None:
        cluster = config.cluster
        self.stopping = asyncio.Event()
        #: Why this process may not go on: the words of a peer that speaks with another one under this node's name.
        self.taken: str | None = None
        self._config = config
        self._boot = os.urandom(BOOT_BYTES)
        self._disk = disk
        self._fields = load_fields(cluster.fields)
        self._keys = load_keys(cluster.api_keys)
        self._keyring = Keyring(cluster.secrets.master.id, config.master_secret)
        self._clock = HybridClock()
        self._events = EventLog(config.data_directory / FILE_NAME, config.node, cluster.events, time.time)
        self._admission = Admission(cluster.limits)
        self._metrics = Metrics(config.peers, self._reading, time.monotonic)
        self._free_space = FreeSpace(config.data_directory)
        self._replica: Replica | None = None
        self._storage = self._start_storage()
        local = self._local_node()
        self._links = {node: self._link(node, local) for node in config.peers}
        self._standing = Standing(self._links.values(), self._on_standing_change)
        self._peer_server = PeerServer(config.endpoints.listen_peer, local, others=config.peers, submit=self._submit)
        self._coordinator = self._make_coordinator()
        listener = listening_socket(cluster.file, f"nodes.{config.node}.api", config.endpoints.listen_api)
        self._http = HttpServer(create_app(self._services()), listener, cluster.limits, cluster.timeouts)
        controls = Controls(self._status, self._reload, self.stopping.set)
        admin_listener = admin_socket.listen(config.data_directory)
        self._admin = HttpServer(create_admin_app(controls, _request_id), admin_listener, cluster.limits, cluster.timeouts)

    def _start_storage(self) -> GroupCommit | None:
        store, limits = self._disk.store, self._config.cluster.limits
        if store is None:
            return None
        store = TimedStore(store, time.perf_counter, self._metrics.synced)
        self._replica = Replica(store, self._disk.identity, self._keyring, reply_bytes=limits.reply_bytes)
        return GroupCommit(self._replica, asyncio.get_running_loop(), limits, on_failure=lambda failure: os._exit(STORAGE_EXIT))

    def _local_node(self) -> LocalNode:
        cluster = self._config.cluster
        return LocalNode(
            secret=ClusterSecret(self._config.cluster_secret),
            facts=self._facts,
            claims=Claims(self._config.node),
            on_taken=self._on_taken,
            random_bytes=os.urandom,
            limits=cluster.limits,
            timeouts=cluster.timeouts,
        )

    def _link(self, node: str, local: LocalNode) -> Link:
        address, source = self._config.peers[node].peer, self._config.endpoints.source
        return Link(node, address, local, source=source, rng=SystemRandom(), on_change=self._on_link_change)

    def _make_coordinator(self) -> Coordinator:
        node, disk = self._config.node, self._disk.identity
        peers: dict[str, Peer] = {**self._links, node: LocalPeer(node, self._storage, lambda: self._standing.established)}
        return Coordinator(
            Identity(node, disk.disk, self._boot),
            peers,
            disk.view,
            self._keyring,
            self._config.cluster.timeouts,
            self._clock,
            wall_ms,
            _Observer(self._metrics, self._events),
        )

    def _services(self) -> Services:
        cluster = self._config.cluster
        return Services(
            vault=self._coordinator,
            keys=lambda: self._keys,
            fields=self._fields,
            events=CountedRequests(self._events, self._metrics),
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            health=self._health,
            metrics=self._metrics.text,
            admission=self._admission,
            clock=time.monotonic,
            request_ids=_request_id,
        )

    async def start(self) -> None:
        """Listen, and dial the others. Raises ConfigError if an address cannot be had."""
        loop = asyncio.get_running_loop()
        self._events.start()
        self._watching = loop.create_task(self._free_space.watch(), name="free space")
        endpoints, file = self._config.endpoints, self._config.cluster.file
        try:
            await self._peer_server.start()
        except OSError as error:
            key = f"nodes.{self._config.node}.peer"
            raise ConfigError(file, key, f"cannot listen on {endpoints.listen_peer}: {error.strerror}") from None
        for link in self._links.values():
            link.start()
        self._http.start()
        self._admin.start()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        logger.info("%s serves http://%s, peers at %s", self._config.node, endpoints.listen_api, endpoints.listen_peer)

    async def stop(self) -> None:
        """Drain, unless this process must not go on. Then close from the outside in."""
        if self.taken is None:
            await self._drain()
            await self._http.stop()
            await self._leave_cluster()
        else:
            await self._leave_cluster()
            await self._http.stop()
        self._watching.cancel()
        await self._close_storage()
        await self._events.close()
        await self._admin.stop()
        admin_socket.remove(self._config.data_directory)
        logger.info("%s stopped", self._config.node)

    async def _close_storage(self) -> None:
        """A disk that hangs must not keep the process: what it was asked to write nobody was told of."""
        seconds = self._config.cluster.timeouts.drain
        if self._storage is not None and not await asyncio.to_thread(self._storage.close, seconds):
            logger.critical("the disk did not end its last write within %g s; this process ends without it", seconds)
            os._exit(STORAGE_EXIT)
        if self._disk.store is not None:
            self._disk.store.close()

    async def _drain(self) -> None:
        """Be seen to leave, refuse what is new, finish what is under way."""
        timeouts = self._config.cluster.timeouts
        logger.info("%s stops: draining", self._config.node)
        self._admission.announce_stop()
        await asyncio.sleep(timeouts.drain_notice)
        self._admission.refuse_new()
        try:
            async with asyncio.timeout(timeouts.drain):
                await self._admission.idle()
        except TimeoutError:
            logger.warning("%d requests were still under way after %g s", self._admission.in_flight, timeouts.drain)

    async def _leave_cluster(self) -> None:
        for link in self._links.values():
            await link.close()
        await self._peer_server.close()

    def _submit(self, request: AnyRequest, on_reply: OnReply) -> None:
        """The replica's entry for peers."""
        if isinstance(request, Put) and records.holds_value(request.header + b"?"):
            self._clock.observe(records.version_of(request.header).clock, wall_ms())
        if self._storage is None:
            on_reply(NotVoting(request.round, request.view, self._disk.identity.disk))
        elif not self._standing.established:
            on_reply(Unreachable(sent=False))
        else:
            self._storage.submit(request, on_reply)

    def _facts(self) -> NodeFacts:
        disk, cluster = self._disk.identity, self._config.cluster
        return NodeFacts(
            cluster_id=cluster.cluster_id,
            protocol=PROTOCOL_VERSION,
            version=VERSION,
            node=self._config.node,
            disk=disk.disk,
            incarnation=disk.incarnation,
            mode=disk.mode,
            view=disk.view,
            secrets={cluster.secrets.master.id: fingerprint(self._config.master_secret)},
            fields=self._fields.fingerprint,
            keys=self._keys.fingerprint,
            boot=self._boot,
            established=self._standing.established and not self._stalled,
        )

    @property
    def _stalled(self) -> bool:
        """Whether the disk takes longer than any coordinator waits: such a replica is none."""
        return self._storage is not None and self._storage.stalled(self._config.cluster.timeouts.round)

    def _health(self) -> Health:
        stalled = "its disk has not ended a write for long: it answers nothing as a replica" if self._stalled else None
        problems = [problem for problem in (self._disk.problem, stalled, self._events.problem) if problem]
        health = describe(self._facts(), self._coordinator.view, self._links, problems)
        return health if self._admission.phase is Phase.SERVING else msgspec.structs.replace(health, state=DRAINING)

    def _status(self) -> NodeStatus:
        config, endpoints = self._config, self._config.endpoints
        return NodeStatus(
            node=config.node,
            pid=os.getpid(),
            api=str(endpoints.listen_api),
            peer=str(endpoints.listen_peer),
            data=str(config.data_directory),
            facts=show_facts(self._facts()),
            sequence=None if self._replica is None else self._replica.sequence,
            health=self._health(),
            peers=show_peers(self._links, self._peer_server.connected),
            in_flight=self._admission.in_flight,
            limits=config.cluster.limits,
            timeouts=config.cluster.timeouts,
        )

    def _reading(self) -> Reading:
        health = self._health()
        peers_up = {node: link.up for node, link in self._links.items()}
        return Reading(health.state, health.quorum.reachable, peers_up, self._admission.in_flight, self._free_space.bytes)

    def _on_link_change(self, link: Link) -> None:
        if link.up and link.facts is not None:
            self._coordinator.learn(link.facts.view)
        self._standing.link_changed(link)
        self._events.note(Event(event="peer_up" if link.up else "peer_down", peer=link.node, detail=link.last_error))

    def _on_standing_change(self) -> None:
        self._peer_server.tell()

    def _on_taken(self, reason: str) -> None:
        self.taken = self.taken or reason
        self._standing.withdraw()
        self.stopping.set()

    def _reload(self) -> Reloaded:
        """The API keys, and where the peers are. A file that is wrong is refused whole, and what is in force stays."""
        read: list[str] = []
        refused: dict[str, str] = {}
        for what, read_again in (("API keys", self._reload_keys), ("peer addresses", self._reload_addresses)):
            try:
                read_again()
            except ConfigError as error:
                refused[what] = str(error)
                logger.error("the %s stay as they were: %s", what, error)
            else:
                read.append(what)
                logger.info("%s read again", what)
        return Reloaded(read, refused)

    def _reload_keys(self) -> None:
        self._keys = load_keys(self._config.cluster.api_keys)

    def _reload_addresses(self) -> None:
        nodes = load_cluster(self._config.cluster.file).nodes
        for node, link in self._links.items():
            link.move(nodes[node].peer)
