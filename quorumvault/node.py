"""One node, put together from its configuration, run until it is told to stop, and stopped without harm.

                 HTTP                                            frames
    clients ────────────▶ api ──▶ Coordinator ──▶ Exchange ──┬────────▶ Link n2 ─ ─▶ PeerServer of n2
                                                             ├────────▶ Link n3
                                                             └▶ LocalPeer ─┐
    Links of n2, n3 ─ ─▶ PeerServer ────────────────────────────────────▶ GroupCommit ▶ Replica ▶ Store   (storage thread)

Exit codes of ``serve``: 0 stopped as asked, 1 configuration (ConfigError), 3 storage (StorageFailed).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from importlib.metadata import version as installed_version
from random import SystemRandom

from quorumvault.api.admission import Admission
from quorumvault.api.app import create_app
from quorumvault.api.health import Health
from quorumvault.api.services import Services
from quorumvault.config import NodeConfig
from quorumvault.coordinator import Coordinator, Identity
from quorumvault.crypto.keys import Keyring, fingerprint
from quorumvault.disk import lock_data_directory
from quorumvault.errors import ConfigError
from quorumvault.events import FILE_NAME, Event, EventLog
from quorumvault.fields import load_fields
from quorumvault.groupcommit import GroupCommit
from quorumvault.httpserver import HttpServer, listening_socket
from quorumvault.keyfile import load_keys
from quorumvault.nodedisk import NodeDisk, open_disk
from quorumvault.nodehealth import describe
from quorumvault.peers.connection import LocalNode
from quorumvault.peers.facts import NodeFacts
from quorumvault.peers.handshake import ClusterSecret
from quorumvault.peers.link import Link
from quorumvault.peers.local import LocalPeer
from quorumvault.peers.peer import OnReply, Peer
from quorumvault.peers.server import PeerServer
from quorumvault.protocol import records
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import PROTOCOL_VERSION, AnyRequest, NotVoting, Put
from quorumvault.replica import Replica

logger = logging.getLogger("quorumvault.node")

#: Exit code for a store that cannot be trusted.
STORAGE_EXIT = 3
VERSION = installed_version("quorumvault")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def serve(config: NodeConfig) -> int:
    """Run one node until SIGTERM or SIGINT, then 0. Raises ConfigError, StorageFailed."""
    config.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_data_directory(config.data_directory):
        node = Node(config, open_disk(config))
        await node.start()
        await node.stopping.wait()
        await node.stop()
    return 0


class Node:
    """The composition root. Everything that a node is made of is made here, and passed what it needs."""

    def __init__(self, config: NodeConfig, disk: NodeDisk) -> None:
        cluster = config.cluster
        self.stopping = asyncio.Event()
        self._config = config
        self._disk = disk
        self._fields = load_fields(cluster.fields)
        self._keys = load_keys(cluster.api_keys)
        self._keyring = Keyring(cluster.secrets.master.id, config.master_secret)
        self._clock = HybridClock()
        self._events = EventLog(config.data_directory / FILE_NAME, config.node, cluster.events, time.time)
        self._admission = Admission(cluster.limits)
        self._storage = self._start_storage()
        local = LocalNode(
            ClusterSecret(config.cluster_secret), self._facts, os.urandom, limits=cluster.limits, timeouts=cluster.timeouts
        )
        self._links = {node: self._link(node, local) for node in config.peers}
        self._peer_server = PeerServer(config.endpoints.listen_peer, local, others=config.peers, submit=self._submit)
        self._coordinator = self._make_coordinator()
        listener = listening_socket(cluster.file, f"nodes.{config.node}.api", config.endpoints.listen_api)
        self._http = HttpServer(create_app(self._services()), listener, cluster.timeouts)

    def _start_storage(self) -> GroupCommit | None:
        store, limits = self._disk.store, self._config.cluster.limits
        if store is None:
            return None
        replica = Replica(store, self._disk.identity, self._keyring, reply_bytes=limits.reply_bytes)
        return GroupCommit(replica, asyncio.get_running_loop(), limits, on_failure=lambda failure: os._exit(STORAGE_EXIT))

    def _link(self, node: str, local: LocalNode) -> Link:
        address, source = self._config.peers[node].peer, self._config.endpoints.source
        return Link(node, address, local, source=source, rng=SystemRandom(), on_change=self._on_link_change)

    def _make_coordinator(self) -> Coordinator:
        node, disk = self._config.node, self._disk.identity
        peers: dict[str, Peer] = {**self._links, node: LocalPeer(node, self._storage)}
        return Coordinator(
            Identity(node, disk.disk, os.urandom(8)),
            peers,
            disk.view,
            self._keyring,
            self._config.cluster.timeouts,
            self._clock,
            wall_ms,
            self._on_read_repair,
        )

    def _services(self) -> Services:
        cluster = self._config.cluster
        return Services(
            vault=self._coordinator,
            keys=lambda: self._keys,
            fields=self._fields,
            events=self._events,
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            health=self._health,
            admission=self._admission,
            clock=time.monotonic,
            request_ids=lambda: uuid.uuid4().hex,
        )

    async def start(self) -> None:
        """Listen, and dial the others. Raises ConfigError if an address cannot be had."""
        loop = asyncio.get_running_loop()
        self._events.start()
        endpoints, file = self._config.endpoints, self._config.cluster.file
        try:
            await self._peer_server.start()
        except OSError as error:
            key = f"nodes.{self._config.node}.peer"
            raise ConfigError(file, key, f"cannot listen on {endpoints.listen_peer}: {error.strerror}") from None
        for link in self._links.values():
            link.start()
        self._http.start()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        logger.info("%s serves http://%s, peers at %s", self._config.node, endpoints.listen_api, endpoints.listen_peer)

    async def stop(self) -> None:
        """Drain: be seen to leave, refuse what is new, finish what is under way. Then close from the outside in."""
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
        await self._http.stop()
        for link in self._links.values():
            await link.close()
        await self._peer_server.close()
        if self._storage is not None:
            self._storage.close()
        if self._disk.store is not None:
            self._disk.store.close()
        await self._events.close()
        logger.info("%s stopped", self._config.node)

    def _submit(self, request: AnyRequest, on_reply: OnReply) -> None:
        """The replica's entry for peers."""
        if isinstance(request, Put) and records.holds_value(request.header + b"?"):
            self._clock.observe(records.version_of(request.header).clock, wall_ms())
        if self._storage is None:
            on_reply(NotVoting(request.round, request.view, self._disk.identity.disk))
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
        )

    def _health(self) -> Health:
        problems = [problem for problem in (self._disk.problem, self._events.problem) if problem]
        return describe(self._facts(), self._coordinator.view, self._links, problems)

    def _on_link_change(self, link: Link) -> None:
        if link.up and link.facts is not None:
            self._coordinator.learn(link.facts.view)
        self._events.note(Event(event="peer_up" if link.up else "peer_down", peer=link.node, detail=link.last_error))

    def _on_read_repair(self, node: str, count: int) -> None:
        self._events.note(Event(event="read_repair", peer=node, items=count, outcome="ok"))

    def _reload(self) -> None:
        """SIGHUP: the API keys. A file that is wrong is refused whole, and the keys in force stay."""
        try:
            self._keys = load_keys(self._config.cluster.api_keys)
        except ConfigError as error:
            logger.error("SIGHUP: the API keys stay as they were: %s", error)
        else:
            logger.info("SIGHUP: API keys read again")
