"""What a node does when its operator takes a backup: one at a time, and noted in the event log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime

from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import Keyring, backup_key, fingerprint
from quorumvault.errors import Busy, NoQuorum
from quorumvault.model import Owner
from quorumvault.server.backup.format import Header
from quorumvault.server.backup.take import Taking
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.telemetry.event_log import Event


class Backups:
    """``healer``: None on a node that has no disk. ``owners``: those that the key file has; ``version``: of this program."""

    def __init__(
        self,
        config: NodeConfig,
        version: str,
        healer: Callable[[], Healer | None],
        owners: Callable[[], Collection[Owner]],
        note: Callable[[Event], None],
    ) -> None:
        self._config = config
        self._version = version
        self._healer = healer
        self._owners = owners
        self._note = note
        self._busy = False

    async def take(self) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup. Raises NoQuorum, before the first of them, if it cannot begin; Busy if one is under way."""
        if self._busy:
            raise Busy(f"a backup is being taken through {self._config.node} already: each takes its share of the disks' time")
        self._busy = True
        try:
            taking = self._begin()
            began = time.monotonic()
            try:
                async with aclosing(taking.chunks()) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                milliseconds = round((time.monotonic() - began) * 1000, 3)
                items = taking.audit.counts.records
                self._note(Event(event="backup", items=items, outcome=taking.outcome, duration_ms=milliseconds))
        finally:
            self._busy = False

    def _begin(self) -> Taking:
        config, cluster, healer = self._config, self._config.cluster, self._healer()
        view = None if healer is None else healer.replicas.view
        if healer is None or view is None:
            raise NoQuorum(f"{config.node} has no disk that a backup could be read from; take it through another node")
        master, secret = cluster.secrets.master.id, config.master_secret
        header = Header(
            cluster_id=cluster.cluster_id,
            view=view.number,
            secret=master,
            fingerprint=fingerprint(secret),
            begun=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=self._version,
        )
        throttle, keyring = Throttle(cluster.healing.share), Keyring(master, secret)
        return Taking(healer.replicas, config.peers, throttle, view, header, keyring, backup_key(secret), self._owners())
