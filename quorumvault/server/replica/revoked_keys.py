"""The ids of the revoked API keys that this disk knows: a set that only grows, in the disk's store and in memory.

A replica answers "which keys are revoked" from memory, so it can answer on the event loop, however slow the disk is
(local_peer.py). An id is added to memory only after its write has returned.

Rules kept here: a revoked key stays revoked.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Final

from quorumvault.protocol.messages import AnyReply, NotVoting, OtherView, ReadRevoked, Request, RevokedAre, RevokeKeys
from quorumvault.protocol.revocations import MOST_HELD, fingerprint_of
from quorumvault.protocol.views import votes
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.store import Store

#: Most ids that a disk has after copies. Both other disks have up to MOST_HELD each, and no acknowledged id may be missing; this
#: still bounds what a peer can make this node hold. They take 7 MB in an answer, for which each ``frame_bytes`` has room.
_MOST_COPIED: Final = 3 * MOST_HELD


class RevokedKeys:
    """Changed on the store's thread only; ``answer`` and ``ids`` may be used on other threads.

    Raises StoreCorrupt if the store cannot read its revoked keys: otherwise a revoked key could work again.
    """

    def __init__(self, store: Store) -> None:
        self._known = _Known(frozenset(_ids_in(key for key, _ in store.scan(layout.REVOKED))))

    @property
    def ids(self) -> frozenset[str]:
        return self._known.ids

    def store(
        self,
        request: RevokeKeys,
        identity: DiskIdentity,
        write: Callable[[dict[bytes, bytes]], None],
        has_reserve: Callable[[], bool],
    ) -> AnyReply | None:
        """Store the requested ids in a separate ``write``: revocations are rare, and must be possible on a nearly full disk.

        Returns a refusal, also for more than MOST_HELD ids, or None if all ids are durable.
        """
        view = identity.view
        if view is not None and request.view != view.id:
            return OtherView(request.round, request.view, identity.disk, view)
        fresh = {layout.revoked_key(key_id): layout.REVOKED_VALUE for key_id in request.ids if key_id not in self.ids}
        if fresh and (len(self.ids) + len(fresh) > MOST_HELD or not has_reserve()):
            return NotVoting(request.round, request.view, identity.disk, full=True)
        if fresh:
            write(fresh)
            self.learn(fresh)
        return None

    def takes(self, copied: Iterable[bytes]) -> bool:
        """True if there is room for the revoked API keys among these keys of another disk's store."""
        return len(self.ids) + len(_ids_in(copied) - self.ids) <= _MOST_COPIED

    def learn(self, written: Collection[bytes]) -> None:
        """Take note that the store was written under these keys, which may be of any kind."""
        if fresh := _ids_in(written):
            self._known = _Known(self.ids | fresh)

    def answer(self, request: ReadRevoked, identity: DiskIdentity) -> AnyReply:
        refusal = refusal_of(identity, request)
        if refusal is not None:
            return refusal
        known = self._known
        ids = None if known.fingerprint == request.known else sorted(known.ids)
        return RevokedAre(request.round, request.view, identity.disk, ids)


class _Known:
    """Ids and their fingerprint. Replaced as a whole, so that other threads never see ids with the wrong fingerprint."""

    __slots__ = ("fingerprint", "ids")

    def __init__(self, ids: frozenset[str]) -> None:
        self.ids = ids
        self.fingerprint = fingerprint_of(ids)


def refusal_of(identity: DiskIdentity, request: Request) -> AnyReply | None:
    """The refusal of a disk that may not answer this request, because it does not vote or is in another view; else None."""
    view, disk = identity.view, identity.disk
    if view is None or not votes(disk, identity.mode, view):
        return NotVoting(request.round, request.view, disk)
    if request.view != view.id:
        return OtherView(request.round, request.view, disk, view)
    return None


def _ids_in(keys: Iterable[bytes]) -> set[str]:
    """The ids of revoked API keys among keys of a store, which may be of any kind.

    An invalid id is skipped. LevelDB's checksums show that it was written like that: some release took it from a peer unchecked.
    No revocation is lost by skipping it, and a disk given up because of it would get it from the other disks again.
    """
    ids = set[str]()
    for key in keys:
        if key.startswith(layout.REVOKED):
            with contextlib.suppress(ValueError):
                ids.add(layout.parse_revoked_key(key))
    return ids
