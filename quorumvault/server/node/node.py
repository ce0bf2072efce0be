"""One node: made from its configuration, run until it is told to stop, and stopped without losing a request.

                 HTTP                                            frames
    clients ────────────▶ api ──▶ Coordinator ──▶ Exchange ──┬────────▶ Link n2 ─ ─▶ PeerServer of n2
                                                             ├────────▶ Link n3
                                                             └▶ LocalPeer ─┐
    Links of n2, n3 ─ ─▶ PeerServer ────────────────────────────────────▶ GroupCommit ▶ Replica ▶ Store   (storage thread)

Exit codes of ``serve``: 0 stopped as asked; 1 configuration (ConfigError, RunsElsewhere, DiskReplaced); 3 StorageFailed.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from random import SystemRandom

from quorumvault.config.cluster import NodeConfig
from quorumvault.config.fields import load_fields
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import ConfigError, QuorumVaultError, RunsElsewhere, StoreCorrupt
from quorumvault.model import Owner
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.peer import Peer
from quorumvault.protocol.views import Mode
from quorumvault.server.backup.take import Backups
from quorumvault.server.coordinator.coordinator import Coordinator, Identity
from quorumvault.server.coordinator.revocations import Revocations, seconds_since_boot
from quorumvault.server.coordinator.settle_notices import SettleNotices
from quorumvault.server.healing.healer import Healer, HealerCallbacks
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.old_disk import find_old_disk
from quorumvault.server.healing.requests import Storage
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.http.admin import socket as admin_socket
from quorumvault.server.http.admin.routes import create_admin_app
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.request_ids import fresh_ids
from quorumvault.server.http.routes import create_app, create_crowded_app
from quorumvault.server.http.server import HttpServer, listening_socket
from quorumvault.server.node.disk import LocalDisk
from quorumvault.server.node.health import VERSION, SelfReport, is_active
from quorumvault.server.node.heap import Heap
from quorumvault.server.node.membership import Membership, MembershipCallbacks
from quorumvault.server.node.operator import Operator, neighbours
from quorumvault.server.node.reload import Reloads
from quorumvault.server.node.wall_clock import utc_now, wall_ms
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection import LocalNode
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.peers.link import Link
from quorumvault.server.peers.renewal import Renewal
from quorumvault.server.peers.server import PeerServer
from quorumvault.server.peers.standing import Standing
from quorumvault.server.replica.local_peer import LocalPeer
from quorumvault.server.replica.repeats import likely_repeats
from quorumvault.server.storage.data_directory import NodeDisk, mark_untrusted, open_disk
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory
from quorumvault.server.storage.free_space import FreeSpace
from quorumvault.server.telemetry.event_log import FILE_NAME, Event, EventLog
from quorumvault.server.telemetry.metrics import Metrics, Reading
from quorumvault.server.telemetry.observers import CoordinatorObserver, HealingObserver
from quorumvault.server.telemetry.request_recorder import RequestRecorder

logger = logging.getLogger("quorumvault.node")

#: Size of a nonce.
BOOT_BYTES = 8


async def serve(config: NodeConfig) -> int:
    """Run one node until SIGTERM or SIGINT, then 0. Raises ConfigError, RunsElsewhere, StorageFailed."""
    config.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_data_directory(config.data_directory):
        disk = open_disk(config)
        try:
            node = Node(config, disk)
        except StoreCorrupt as failure:
            mark_untrusted(config.data_directory, str(failure))
            raise
        await node.start()
        await node.stopping.wait()
        await node.stop()
        if node.ending is not None:
            raise node.ending
    return 0


class Node:
    """The composition root: makes every part of a node and passes it what it needs."""

    def __init__(self, config: NodeConfig, disk: NodeDisk) -> None:
        cluster = config.cluster
        self.stopping = asyncio.Event()
        #: Why this process must not go on; None while it may.
        self.ending: QuorumVaultError | None = None
        self._config = config
        self._boot = os.urandom(BOOT_BYTES)
        self._request_ids = fresh_ids()
        self._found = disk.identity
        self._fields = load_fields(cluster.fields)
        self._keyring = Keyring(cluster.secrets.master.id, config.master_secret)
        self._clock = HybridClock()
        self._links: dict[str, Link]
        self._standing: Standing
        self._coordinator: Coordinator
        self._membership: Membership
        self._report: SelfReport
        self._free_space = FreeSpace(config.data_directory, cluster.limits.free_space_floor, self._on_room_change)
        log = config.data_directory / FILE_NAME
        self._events = EventLog(log, config.node, cluster.events, time.time, self._free_space.has_plenty)
        self._renewal: Renewal
        links, renew = lambda: self._links, lambda: self._renewal.begin()  # noqa: PLW0108 - it is made further down
        self._reloads = Reloads(cluster, config.node, utc_now, renew, links, self._introduce, self._events.note)
        self._admission = Admission(cluster.limits, Heap().trim_soon)
        self._metrics = Metrics(config.peers, self._reading)
        self._disk = LocalDisk(config, disk, self._keyring, self._free_space, self._metrics.synced, self._on_identity)
        self._recorder = RequestRecorder(self._events, self._metrics.request)
        self._marks = self._make_marks()
        storage, own_disk = lambda: self._disk.storage, lambda: self._membership.identity.disk
        established = lambda: self._standing.established  # noqa: E731 - it is made further down
        self._own = LocalPeer(config.node, storage, own_disk, established, self._clock, wall_ms, self._on_revoking)
        local = self._local_node()
        self._links = {node: self._link(node, local) for node in config.peers}
        self._peer_server = PeerServer(config.endpoints.listen_peer, local, others=config.peers, submit=self._own.submit)
        self._standing = Standing(self._links.values(), self._peer_server.tell)
        call_later = asyncio.get_running_loop().call_later
        self._renewal = Renewal(self._peer_server, self._links.values(), cluster.timeouts, call_later)
        self._notices = SettleNotices(self._peers(), lambda: self._coordinator.view, call_later)
        self._coordinator = self._make_coordinator()
        self._revocations = Revocations(self._coordinator, seconds_since_boot, self._reloads)
        callbacks = MembershipCallbacks(storage, self._coordinator.learn, self._on_identity_change, self._events.note, self._end)
        self._membership = Membership(disk.identity, callbacks, self._make_rejoin)
        self._healer = self._make_healer()
        self._healing = False
        self._report = self._make_report()
        self._http, self._admin = self._make_servers()

    def _make_servers(self) -> tuple[HttpServer, HttpServer]:
        """Return the server of the API, and the server of the operator's socket."""
        config, services = self._config, self._services()
        cluster = config.cluster
        listener = listening_socket(cluster.file, f"nodes.{config.node}.api", config.endpoints.listen_api)
        crowded, limits, timeouts = create_crowded_app(services), cluster.limits, cluster.timeouts
        tls = self._reloads.api_tls()
        http = HttpServer(create_app(services), listener, limits, timeouts, crowded, self._metrics.refused, tls)
        backups = Backups(config, VERSION, lambda: self._healer, lambda: self._reloads.keys.owners, self._events.note)
        operator = Operator(
            self._report, lambda: self._healer, self._peer_server, self._reloads, backups, self._revocations, self._stop_asked
        )
        admin = create_admin_app(operator.controls(), self._request_ids)
        return http, HttpServer(admin, admin_socket.listen(config.data_directory), limits, timeouts)

    def _local_node(self) -> LocalNode:
        cluster = self._config.cluster
        return LocalNode(
            credentials=lambda: self._reloads.credentials.peers,
            facts=lambda: self._report.facts(),  # noqa: PLW0108 - it is made later
            claims=Claims(self._config.node),
            on_taken=lambda reason: self._end(RunsElsewhere(reason)),
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            on_facts=self._on_facts,
            on_refused=lambda node, why: self._events.note(Event(event="peer_refused", peer=node, detail=why)),
        )

    def _link(self, node: str, local: LocalNode) -> Link:
        address, source = self._config.peers[node].peer, self._config.endpoints.source
        return Link(node, address, local, source=source, rng=SystemRandom(), on_change=self._on_link_change)

    def _make_coordinator(self) -> Coordinator:
        node, disk = self._config.node, self._found
        marks, notices = self._marks, self._notices
        observer = CoordinatorObserver(self._metrics, self._events, marks.acknowledged, notices.committed, lambda: self._healer)
        return Coordinator(
            Identity(node, disk.disk, self._boot),
            self._peers(),
            disk.view,
            self._keyring,
            self._config.cluster.timeouts,
            self._clock,
            wall_ms,
            observer,
            reads_settled=self._config.cluster.reads == "settled",
            votes=lambda node: node not in self._links or is_active(self._links[node].facts, self._coordinator.view),
            repeats=lambda owner, epoch, digests: likely_repeats(self._disk.replica, owner, epoch, digests),
        )

    def _make_marks(self) -> RollbackMarks:
        disk, later, lost_with = self._disk, asyncio.get_running_loop().call_later, self._disk.found.remembered
        view, whole = lambda: self._coordinator.view, lambda: neighbours(self._links, self._coordinator.view).all_active
        return RollbackMarks(lambda: disk.replica, lambda: disk.storage, view, later, self._put_back, whole, lost_with)

    def _peers(self) -> dict[str, Peer]:
        return {**self._links, self._config.node: self._own}

    def _make_healer(self) -> Healer | None:
        """Returns None without a disk: there is nothing to heal then, or to heal from."""
        cluster, storage = self._config.cluster, self._disk.storage
        if storage is None:
            return None
        self._introduce(self._reloads.keys.owners)
        callbacks = HealerCallbacks(
            name=self._config.node,
            disk=lambda: self._membership.identity.disk,
            nonce=os.urandom(BOOT_BYTES),
            peers=self._peers(),
            view=lambda: self._coordinator.view,
            neighbours=lambda: neighbours(self._links, self._coordinator.view),
            room_beside=self._disk.has_room_beside,
            announce=self._peer_server.tell,
            give_up=self._give_up,
            wall_ms=wall_ms,
            rng=SystemRandom(),
        )
        return Healer(callbacks, storage, cluster.healing, cluster.timeouts, HealingObserver(self._metrics, self._events))

    def _introduce(self, owners: Iterable[Owner]) -> None:
        if self._disk.replica is not None:
            self._disk.replica.owners.introduce(owners)

    def _on_revoking(self) -> None:
        self._revocations.ask()

    def _put_back(self, why: str) -> None:
        """Stop voting now, and exit after ``timeouts.silence``.

        A peer may first tell this process that it is a duplicate, which is the better reason to exit with.
        """
        self._standing.withdraw()
        asyncio.get_running_loop().call_later(self._config.cluster.timeouts.silence, self._give_up, why)

    def _give_up(self, why: str) -> None:
        """Give up this disk: the scrub found damage, or a peer's mark is ahead of the disk."""
        if self.ending is None:
            self._disk.give_up(why)

    def _make_rejoin(self) -> Rejoin:
        cluster = self._config.cluster
        return Rejoin(
            lambda: self._membership.identity,
            os.urandom(BOOT_BYTES),
            self._links,
            self._disk_to_join_with,
            lambda: self._standing.established,
            Throttle(cluster.healing.share),
            self._marks,
            self._free_space.has_room,
            timeout=cluster.timeouts.round,
            find_old=lambda: find_old_disk(self._config),
        )

    async def _disk_to_join_with(self) -> Storage:
        """The storage of the disk that joins; a lost disk is replaced first. Raises ConfigError."""
        storage = self._disk.storage
        if storage is None:
            self._membership.identity, storage = await self._disk.create_replacement()
            self._healer = self._make_healer()
        return storage

    def _reading(self) -> Reading:
        return self._report.reading()

    def _on_identity(self, identity: DiskIdentity) -> None:
        self._membership.became(identity)

    def _on_identity_change(self) -> None:
        self._start_healing()
        self._peer_server.tell()

    def _start_healing(self) -> None:
        """Start once the disk is active: a joining disk copies everything, and has nothing to give yet."""
        if self._healer is not None and not self._healing and self._membership.identity.mode is Mode.ACTIVE:
            self._healing = True
            self._disk.remove_quarantined()
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

    def _make_report(self) -> SelfReport:
        return SelfReport(
            config=self._config,
            boot=self._boot,
            fields=self._fields.fingerprint,
            disk=self._disk,
            membership=self._membership,
            standing=self._standing,
            marks=self._marks,
            healer=lambda: self._healer,
            coordinator=self._coordinator,
            links=self._links,
            free_space=self._free_space,
            admission=self._admission,
            events=self._events,
            reloads=self._reloads,
            revocations=self._revocations,
        )

    def _services(self) -> Services:
        cluster = self._config.cluster
        return Services(
            vault=self._coordinator,
            keys=lambda: self._reloads.keys,
            knows_revoked=lambda: self._revocations.known,
            learn_revoked=self._revocations.learn,
            fields=self._fields,
            events=self._recorder,
            limits=cluster.limits,
            timeouts=cluster.timeouts,
            health=self._report.health,
            metrics=self._metrics.text,
            admission=self._admission,
            clock=time.monotonic,
            wall=time.time,
            request_ids=self._request_ids,
        )

    async def start(self) -> None:
        """Listen, and dial the peers. Raises ConfigError if an address cannot be bound."""
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
        if self._disk.may_vote:
            self._membership.start()
        self._revocations.start()
        self._http.start()
        self._admin.start()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._stop_asked, stop.name)
        loop.add_signal_handler(signal.SIGHUP, self._reloads.reload, signal.SIGHUP.name)
        self._events.note(Event(event="node_started", detail=f"version {VERSION}, API keys {self._reloads.keys.fingerprint}"))
        scheme, at = self._reloads.credentials.scheme, endpoints.listen_api
        logger.info("%s serves %s://%s, peers at %s", self._config.node, scheme, at, endpoints.listen_peer)

    async def stop(self) -> None:
        """Drain, unless this process must not go on. Then close from the outside in."""
        if self.ending is None:
            await self._admission.drain(self._config.cluster.timeouts)
            await self._http.stop()
            await self._leave_cluster()
        else:
            await self._leave_cluster()
            await self._http.stop()
        self._watching.cancel()
        await self._revocations.stop()
        await self._membership.stop()
        if self._healer is not None:
            await self._healer.stop()
        self._marks.write()
        await self._disk.close()
        self._recorder.flush()
        self._events.note(Event(event="node_stopped"))
        await self._events.close()
        await self._admin.stop()
        admin_socket.remove(self._config.data_directory)
        logger.info("%s stopped", self._config.node)

    async def _leave_cluster(self) -> None:
        for link in self._links.values():
            await link.close()
        await self._peer_server.close()

    def _on_link_change(self, link: Link) -> None:
        self._standing.link_changed(link)
        if self._healer is not None:
            self._healer.anti_entropy.link_changed()
        self._renewal.link_changed(link)
        self._events.note(Event(event="peer_up" if link.up else "peer_down", peer=link.node, detail=link.last_error))

    def _on_facts(self, facts: NodeFacts) -> None:
        self._marks.heard(facts)
        self._membership.heard(facts)

    def _on_room_change(self, full: bool) -> None:
        self._peer_server.tell()
        if self._healer is not None and not full:
            self._healer.anti_entropy.left_over()
        self._events.note(Event(event="disk_full" if full else "disk_has_room", detail=self._free_space.problem))
