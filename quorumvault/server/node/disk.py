"""This node's disk while the process runs: the storage thread that serves it, its replacement, and the end of a lost disk.

open     data_directory.open_disk found a store    ->  replica and storage thread run
none     the store is lost, or never existed       ->  ``create_replacement`` gives this node an empty store to rejoin with
given up the store can no longer be trusted        ->  the reason is noted, and the process ends with STORAGE_EXIT
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from quorumvault.config.cluster import Cluster, NodeConfig
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import ConfigError, StorageFailed, StoreCorrupt
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.replica.record_cache import RecordCache
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage.data_directory import (
    IDENTITY_FILE,
    STORE_DIRECTORY,
    NodeDisk,
    create_replacement,
    mark_untrusted,
    remove_quarantined,
    store_bytes,
)
from quorumvault.server.storage.disk_identity import DiskIdentity, write_identity
from quorumvault.server.storage.free_space import FreeSpace
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.set_aside import stores_set_aside

logger = logging.getLogger("quorumvault.node")

#: Exit code for a store that cannot be trusted.
STORAGE_EXIT = 3
#: Seconds between two looks whether the disk's files are still there, for a node that writes nothing meanwhile.
_LOOK_SECONDS = 2.0


@dataclass(eq=False)
class LocalDisk:
    """``replica`` and ``storage`` are None while this node has no disk. Used on the event loop's thread.

    ``on_sync(seconds)`` is called on the storage thread after each write, ``on_identity`` on the event loop's thread after the
    replica has made a changed identity durable.
    """

    config: NodeConfig
    found: NodeDisk
    keyring: Keyring
    free_space: FreeSpace
    on_sync: Callable[[float], None]
    on_identity: Callable[[DiskIdentity], None]

    def __post_init__(self) -> None:
        self.replica: Replica | None = None
        self.storage: GroupCommit | None = None
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.Task[None] | None = None
        self._cache = _make_cache(self.config.cluster)  # before a new disk is made, which the cluster would then know
        if self.found.store is not None:
            self._start(self.found.store, self.found.identity)

    @property
    def problem(self) -> str | None:
        """Why this node has no disk, in words for /health; None while it has one."""
        return self.found.problem

    @property
    def may_vote(self) -> bool:
        """Whether this node has a disk, or may be given another one without its operator."""
        return self.found.store is not None or self.found.replaceable

    @property
    def keeps_old(self) -> bool:
        """Whether this node has a store that it does not use."""
        left = self.storage is None and (self.config.data_directory / STORE_DIRECTORY).exists()
        return left or bool(stores_set_aside(self.config))

    @property
    def stalled(self) -> bool:
        """Whether the disk takes longer than any coordinator waits. A replica on such a disk counts as unreachable."""
        return self.storage is not None and self.storage.stalled(self.config.cluster.timeouts.round)

    def has_room_beside(self) -> bool:
        """Whether another store of this one's size fits on the file system."""
        return self.free_space.has_room_for(store_bytes(self.config.data_directory))

    async def create_replacement(self) -> tuple[DiskIdentity, GroupCommit]:
        """An empty disk in place of the lost one. Raises ConfigError; ends the process if the store cannot be made."""
        try:
            identity, store = await asyncio.to_thread(create_replacement, self.config, self.found.identity)
        except StorageFailed as failure:
            logger.critical("%s gets no new disk: %s", self.config.node, failure)
            os._exit(STORAGE_EXIT)
        self.found = NodeDisk(identity, store)
        return identity, self._start(store, identity)

    def remove_quarantined(self) -> None:
        """Delete, on another thread, the stores that this node no longer needs: none while its own store has gaps."""
        if self.replica is not None and self.replica.gaps.count:
            return
        self._loop.run_in_executor(None, remove_quarantined, self.config.data_directory)

    def give_up(self, why: str) -> None:
        """This disk cannot be trusted: end the process, and have the next start replace the disk. Does not return."""
        logger.critical("%s gives up its disk: %s", self.config.node, why)
        mark_untrusted(self.config.data_directory, why)
        os._exit(STORAGE_EXIT)

    async def close(self) -> None:
        """Write what is queued and close the store. If the disk hangs, end the process: that write was never acknowledged."""
        seconds = self.config.cluster.timeouts.drain
        if self._watching is not None:
            self._watching.cancel()
        if self.storage is not None and not await asyncio.to_thread(self.storage.close, seconds):
            logger.critical("the disk did not end its last write within %g s; this process ends without it", seconds)
            os._exit(STORAGE_EXIT)
        if self.found.store is not None:
            self.found.store.close()

    def _start(self, store: LevelDBStore, identity: DiskIdentity) -> GroupCommit:
        limits = self.config.cluster.limits
        store.on_write = self.on_sync
        self.replica = Replica(
            store,
            identity,
            self.keyring,
            reply_bytes=limits.reply_bytes,
            copy_bytes=limits.copy_bytes,
            cache=self._cache,
            keep=self._keep,
            has_room=self.free_space.has_room,
            has_reserve=self.free_space.has_reserve,
        )
        self.storage = GroupCommit(self.replica, self._loop, limits, self._on_failure)
        self._watching = self._loop.create_task(self._watch(store), name="files of the disk")
        return self.storage

    async def _watch(self, store: LevelDBStore) -> None:
        """End the process if somebody removes the data directory under it: until its next write, it would be called healthy."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self._require_files, store)

    def _require_files(self, store: LevelDBStore) -> None:
        identity = self.config.data_directory / IDENTITY_FILE
        try:
            store.require_place()
            with contextlib.suppress(OSError):  # nobody can tell just now: the next look may
                if identity.exists():
                    return
                raise StorageFailed(f"{identity}: it was removed while this process ran")
        except StorageFailed as failure:
            logger.critical("%s has lost its disk, and ends: %s", self.config.node, failure)
            os._exit(STORAGE_EXIT)

    def _keep(self, identity: DiskIdentity) -> None:
        """Make a changed identity durable. Called on the storage thread."""
        write_identity(self.config.data_directory / IDENTITY_FILE, identity)
        self._loop.call_soon_threadsafe(self.on_identity, identity)

    def _on_failure(self, failure: BaseException) -> None:
        """Called on the storage thread: the state of the store is no longer known."""
        if isinstance(failure, StoreCorrupt):
            mark_untrusted(self.config.data_directory, str(failure))
        os._exit(STORAGE_EXIT)


def _make_cache(cluster: Cluster) -> RecordCache:
    """Raises ConfigError if the machine does not promise that much memory."""
    try:
        return RecordCache(cluster.limits.cache_bytes)
    except OSError as error:
        expected = f"expected no more than this machine has room for: {error.strerror}"
        raise ConfigError(cluster.file, "limits.cache_bytes", expected) from None
