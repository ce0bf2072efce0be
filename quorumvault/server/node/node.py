"""One node, put together from its configuration, run until it is told to stop, and stopped without harm.

                 HTTP                                            frames
    clients ────────────▶ api ──▶ Coordinator ──▶ Exchange ──┬────────▶ Link n2 ─ ─▶ PeerServer of n2
                                                             ├────────▶ Link n3
                                                             └▶ LocalPeer ─┐
    Links of n2, n3 ─ ─▶ PeerServer ────────────────────────────────────▶ GroupCommit ▶ Replica ▶ Store   (storage thread)

Exit codes of ``serve``: 0 stopped as asked; 1 configuration (ConfigError, RunsElsewhere, DiskReplaced); 3 StorageFailed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version as installed_version
from random import SystemRandom

import msgspec

from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import Keyring, fingerprint
from quorumvault.errors import ConfigError, QuorumVaultError, RunsElsewhere, StorageFailed, StoreCorrupt
from quorumvault.formats.fields import load_fields
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import PROTOCOL_VERSION, AnyRequest, NotVoting, Put, RaiseEpoch
from quorumvault.protocol.peer import OnReply, Peer, Unreachable
from quorumvault.protocol.views import Mode
from quorumvault.server.backup.runs import Backups
from quorumvault.server.coordinator.coordinator import Coordinator, Identity
from quorumvault.server.healing.healer import Healer, Surroundings
from quorumvault.server.healing.hinted_handoff import Owed
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.requests import Storage
from quorumvault.server.healing.rollback_marks import Memory
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.healing.throttle import Pace
from quorumvault.server.http.admin import socket as admin_socket
from quorumvault.server.http.admin.routes import Controls, create_admin_app
from quorumvault.server.http.admin.schemas import NodeStatus, Repaired, Verified
from quorumvault.server.http.admin.status import show_facts, show_peers
from quorumvault.server.http.admission import Admission, Phase
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.health import Health
from quorumvault.server.http.request_ids import fresh_ids
from quorumvault.server.http.routes import create_app, create_crowded_app
from quorumvault.server.http.server import HttpServer, listening_socket
from quorumvault.server.node.health import describe
from quorumvault.server.node.heap import Heap
from quorumvault.server.node.membership import Around, Membership
from quorumvault.server.node.operator import neighbours, repair, verify
from quorumvault.server.node.reload import Reloads
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection import LocalNode
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.handshake import ClusterSecret
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.server import PeerServer
from quorumvault.server.peers.standing import Standing
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.replica.local_peer import LocalPeer
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage.data_directory import (
    IDENTITY_FILE,
    NodeDisk,
    distrust,
    open_disk,
    provide,
    remove_set_aside,
    store_bytes,
)
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory, write_identity
from quorumvault.server.storage.free_space import FreeSpace
from quorumvault.server.storage.store import Store
from quorumvault.server.storage.timed import TimedStore
from quorumvault.server.telemetry.event_log import FILE_NAME, Event, EventLog
from quorumvault.server.telemetry.metrics import DRAINING, CountedRequests, Metrics, Reading
from quorumvault.server.telemetry.observers import CoordinatorNews, HealingNews
from quorumvault.server.telemetry.refusals import RefusalsTogether

logger = logging.getLogger("quorumvault.node")

#: Exit code for a store that cannot be trusted.
STORAGE_EXIT = 3
VERSION = installed_version("quorumvault")
#: Of the nonce of a start.
BOOT_BYTES = 8


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def serve(config: NodeConfig) -> int:
    """Run one node until SIGTERM or SIGINT, then 0. Raises ConfigError, RunsElsewhere, StorageFailed."""
    config.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_data_directory(config.data_directory):
        disk = open_disk(config)
        try:
            node = Node(config, disk)
        except StoreCorrupt as failure:
            distrust(config.data_directory, str(failure))
            raise
        await node.start()
        await node.stopping.wait()
        await node.stop()
        if node.ending is not None:
            raise node.ending
    return 0


class Node:
    """The composition root. Everything that a node is made of is made here, and passed what it needs."""

    def __init__(self, config: NodeConfig, disk: NodeDisk) -> None:
        cluster = config.cluster
        self.stopping = asyncio.Event()
        #: Why this process may not go on.
        self.ending: QuorumVaultError | None = None
        self._config = config
        self._boot = os.urandom(BOOT_BYTES)
        self._request_ids = fresh_ids()
        self._disk = disk
        self._fields = load_fields(cluster.fields)
        self._keyring = Keyring(cluster.secrets.master.id, config.master_secret)
        self._clock = HybridClock()
        self._free_space = FreeSpace(config.data_directory, cluster.limits.free_space_floor, self._on_room_change)
        log = config.data_directory / FILE_NAME
        self._events = EventLog(log, config.node, cluster.events, time.time, self._free_space.has_plenty)
        self._reloads = Reloads(cluster, lambda: self._links, self._introduce, self._events.note)
        self._refusals = RefusalsTogether(self._events)
        self._admission = Admission(cluster.limits, Heap().trim_soon)
        self._metrics = Metrics(config.peers, self._reading)
        self._replica: Replica | None = None
        self._storage = None if disk.store is None else self._start_storage(disk.store, disk.identity)
        self._memory = self._make_memory()
        local = self._local_node()
        self._links = {node: self._link(node, local) for node in config.peers}
        self._peer_server = PeerServer(config.endpoints.listen_peer, local, others=config.peers, submit=self._submit)
        self._standing = Standing(self._links.values(), self._peer_server.tell)
        self._coordinator = self._make_coordinator()
        around = Around(lambda: self._storage, self._coordinator.learn, self._on_identity_change, self._events.note, self._end)
        self._membership = Membership(disk.identity, around, self._make_rejoin)
        self._healer = self._make_healer()
        self._healing = False
        listener = listening_socket(cluster.file, f"nodes.{config.node}.api", config.endpoints.listen_api)
        crowded, limits, timeouts = create_crowded_app(self._services()), cluster.limits, cluster.timeouts
        self._http = HttpServer(create_app(self._services()), listener, limits, timeouts, crowded, self._metrics.refused)
        backups = Backups(config, VERSION, lambda: self._healer, lambda: self._reloads.keys.owners, self._events.note)
        here = "the administrative socket"
        reload, stop = partial(self._reloads.reload, here), partial(self._stop_asked, here)
        controls = Controls(self._status, reload, stop, self._repair, self._verify, backups.take)
        admin, admin_listener = create_admin_app(controls, self._request_ids), admin_socket.listen(config.data_directory)
        self._admin = HttpServer(admin, admin_listener, limits, timeouts)

    def _start_storage(self, store: Store, identity: DiskIdentity) -> GroupCommit:
        limits = self._config.cluster.limits
        self._replica = Replica(
            TimedStore(store, time.perf_counter, self._metrics.synced),
            identity,
            self._keyring,
            reply_bytes=limits.reply_bytes,
            copy_bytes=limits.copy_bytes,
            keep=partial(self._keep, asyncio.get_running_loop()),
            has_room=self._free_space.has_room,
            has_reserve=self._free_space.has_reserve,
        )
        return GroupCommit(self._replica, asyncio.get_running_loop(), limits, self._on_storage_failure)

    def _keep(self, loop: asyncio.AbstractEventLoop, identity: DiskIdentity) -> None:
        """Called on the storage thread."""
        write_identity(self._config.data_directory / IDENTITY_FILE, identity)
        loop.call_soon_threadsafe(self._membership.became, identity)

    def _on_storage_failure(self, failure: BaseException) -> None:
        """Called on the storage thread."""
        if isinstance(failure, StoreCorrupt):
            distrust(self._config.data_directory, str(failure))
        os._exit(STORAGE_EXIT)

    def _local_node(self) -> LocalNode:
        cluster = self._config.cluster
        return LocalNode(
            secret=ClusterSecret(self._config.cluster_secret),
            facts=self._facts,
            claims=Claims(self._config.node),
            on_taken=lambda reason: self._end(RunsElsewhere(reason)),
            random_bytes=os.urandom,
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            on_facts=self._on_facts,
        )

    def _link(self, node: str, local: LocalNode) -> Link:
        address, source = self._config.peers[node].peer, self._config.endpoints.source
        return Link(node, address, local, source=source, rng=SystemRandom(), on_change=self._on_link_change)

    def _make_coordinator(self) -> Coordinator:
        node, disk = self._config.node, self._disk.identity
        return Coordinator(
            Identity(node, disk.disk, self._boot),
            self._peers(),
            disk.view,
            self._keyring,
            self._config.cluster.timeouts,
            self._clock,
            wall_ms,
            CoordinatorNews(self._metrics, self._events, self._memory.acknowledged, self._missed),
        )

    def _make_memory(self) -> Memory:
        later = asyncio.get_running_loop().call_later
        return Memory(lambda: self._replica, lambda: self._storage, lambda: self._coordinator.view, later, self._put_back)

    def _peers(self) -> dict[str, Peer]:
        node = self._config.node
        return {**self._links, node: LocalPeer(node, lambda: self._storage, lambda: self._standing.established)}

    def _make_healer(self) -> Healer | None:
        """Without a disk there is nothing to heal, or to heal from."""
        cluster, storage, replica = self._config.cluster, self._storage, self._replica
        if storage is None or replica is None:
            return None
        self._introduce(self._reloads.keys.owners)
        around = Surroundings(
            node=self._config.node,
            disk=lambda: self._membership.identity.disk,
            nonce=os.urandom(BOOT_BYTES),
            peers=self._peers(),
            view=lambda: self._coordinator.view,
            neighbours=lambda: neighbours(self._links, self._coordinator.view),
            room_beside=lambda: self._free_space.has_room_for(store_bytes(self._config.data_directory)),
            announce=self._peer_server.tell,
            give_up=self._give_up,
            wall_ms=wall_ms,
            rng=SystemRandom(),
        )
        return Healer(around, storage, cluster.healing, cluster.timeouts, HealingNews(self._metrics, self._events))

    def _introduce(self, owners: Iterable[Owner]) -> None:
        if self._replica is not None:
            self._replica.owners.introduce(owners)

    def _missed(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        if self._healer is not None:
            self._healer.missed(node, disk, request)

    def _owed(self) -> dict[str, Owed]:
        return {node: Owed(0, 0.0) if self._healer is None else self._healer.owed(node) for node in self._links}

    def _put_back(self, why: str) -> None:
        """It votes no more. If another process has its name, on a copy of its disk, a peer says so before this comes to pass."""
        self._standing.withdraw()
        asyncio.get_running_loop().call_later(self._config.cluster.timeouts.silence, self._give_up, why)

    def _give_up(self, why: str) -> None:
        """This disk cannot be trusted (rule 11): it is found wanting by the scrub, or by what others remember of it."""
        if self.ending is not None:
            return
        logger.critical("%s gives up its disk: %s", self._config.node, why)
        distrust(self._config.data_directory, why)
        os._exit(STORAGE_EXIT)

    def _make_rejoin(self) -> Rejoin:
        cluster = self._config.cluster
        return Rejoin(
            lambda: self._membership.identity,
            os.urandom(BOOT_BYTES),
            self._links,
            self._provide_storage,
            lambda: self._standing.established,
            Pace(cluster.healing.share),
            self._memory,
            self._free_space.has_room,
            timeout=cluster.timeouts.round,
        )

    async def _provide_storage(self) -> Storage:
        """Of the disk that joins. A lost one is replaced first (view rule 6). Raises ConfigError."""
        storage = self._storage
        if storage is None:
            try:
                identity, store = await asyncio.to_thread(provide, self._config, self._disk.identity)
            except StorageFailed as failure:
                logger.critical("%s gets no new disk: %s", self._config.node, failure)
                os._exit(STORAGE_EXIT)
            self._disk, self._membership.identity = NodeDisk(identity, store), identity
            storage = self._storage = self._start_storage(store, identity)
            self._healer = self._make_healer()
        return storage

    def _on_identity_change(self) -> None:
        self._start_healing()
        self._peer_server.tell()

    def _start_healing(self) -> None:
        """Once its disk is active: a joining one copies everything, and has nothing to give yet."""
        if self._healer is not None and not self._healing and self._membership.identity.mode is Mode.ACTIVE:
            self._healing = True
            asyncio.get_running_loop().run_in_executor(None, remove_set_aside, self._config.data_directory)
            self._healer.start()

    def _end(self, reason: QuorumVaultError) -> None:
        """This process must not go on."""
        self.ending = self.ending or reason
        self._standing.withdraw()
        self._stop_asked(str(reason))

    def _stop_asked(self, why: str) -> None:
        if not self.stopping.is_set():
            self._events.note(Event(event="node_stopping", detail=why))
        self.stopping.set()

    async def _repair(self) -> Repaired:
        return await repair(self._healer, self._config.node, self._links)

    async def _verify(self) -> Verified:
        return await verify(self._healer, self._config.node, self._links)

    def _services(self) -> Services:
        cluster = self._config.cluster
        return Services(
            vault=self._coordinator,
            keys=lambda: self._reloads.keys,
            fields=self._fields,
            events=CountedRequests(self._refusals, self._metrics),
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            health=self._health,
            metrics=self._metrics.text,
            admission=self._admission,
            clock=time.monotonic,
            request_ids=self._request_ids,
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
        self._start_healing()
        if self._disk.store is not None or self._disk.replaceable:
            self._membership.start()
        self._http.start()
        self._admin.start()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._stop_asked, stop.name)
        loop.add_signal_handler(signal.SIGHUP, self._reloads.reload, signal.SIGHUP.name)
        self._events.note(Event(event="node_started", detail=f"version {VERSION}, API keys {self._reloads.keys.fingerprint}"))
        logger.info("%s serves http://%s, peers at %s", self._config.node, endpoints.listen_api, endpoints.listen_peer)

    async def stop(self) -> None:
        """Drain, unless this process must not go on. Then close from the outside in."""
        if self.ending is None:
            await self._drain()
            await self._http.stop()
            await self._leave_cluster()
        else:
            await self._leave_cluster()
            await self._http.stop()
        self._watching.cancel()
        await self._membership.stop()
        if self._healer is not None:
            await self._healer.stop()
        self._memory.write()
        await self._close_storage()
        self._refusals.flush()
        self._events.note(Event(event="node_stopped"))
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
            on_reply(NotVoting(request.round, request.view, self._membership.identity.disk))
        elif not self._standing.established:
            on_reply(Unreachable(sent=False))
        else:
            self._storage.submit(request, on_reply)

    def _facts(self) -> NodeFacts:
        disk, cluster = self._membership.identity, self._config.cluster
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
            keys=self._reloads.keys.fingerprint,
            boot=self._boot,
            established=self._standing.established and not self._stalled,
            full=self._free_space.full,
            damaged=self._healer is not None and self._healer.scrub.damage is not None,
            sequence=0 if self._replica is None else self._replica.sequence,
            marks=dict(self._memory.known),
        )

    @property
    def _stalled(self) -> bool:
        """Whether the disk takes longer than any coordinator waits: such a replica is none."""
        return self._storage is not None and self._storage.stalled(self._config.cluster.timeouts.round)

    def _health(self) -> Health:
        stalled = "its disk has not ended a write for long: it answers nothing as a replica" if self._stalled else None
        damage = None if self._healer is None else self._healer.scrub.problem
        own = (self._disk.problem, stalled, damage, self._free_space.problem, self._events.problem, self._reloads.problem)
        problems = filter(None, own)
        health = describe(self._facts(), self._coordinator.view, self._links, problems, self._owed(), self._membership.progress)
        if self._events.refuses:
            health = msgspec.structs.replace(health, status="unavailable")
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
        scrub = ScrubCounts() if self._healer is None else self._healer.scrub.counts
        in_flight, held, free = self._admission.in_flight, self._admission.memory.held, self._free_space.bytes
        reading = Reading(health.state, health.quorum.reachable, peers_up, in_flight, free, self._owed(), scrub, memory=held)
        return reading._replace(joining=self._membership.progress, reload_failed=self._reloads.problem is not None)

    def _on_link_change(self, link: Link) -> None:
        self._standing.link_changed(link)
        self._events.note(Event(event="peer_up" if link.up else "peer_down", peer=link.node, detail=link.last_error))

    def _on_facts(self, facts: NodeFacts) -> None:
        self._memory.heard(facts)
        self._membership.heard(facts)

    def _on_room_change(self, full: bool) -> None:
        self._peer_server.tell()
        self._events.note(Event(event="disk_full" if full else "disk_has_room", detail=self._free_space.problem))
