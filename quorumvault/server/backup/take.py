"""Takes a backup: a running node reads its own disk and one peer's, both active in one view.

A backup has everything that was committed before it began. A committed record is on two of the view's three active disks, so any
two disks include one that has it; both disks are read after the backup began, and nothing is ever deleted. If a newer view had
followed by then, one of the two disks would have entered it, and would refuse requests in the older view. This argument holds
key by key: if one peer cannot continue, the other peer continues from there, and if a disk cannot read a part of its records, the
third disk is read too. A part is complete if two of the three disks can read it. A part that one disk or none can read is in the
backup as far as it can be read, and marked as a gap (storage/gaps.py): a cluster restored from the backup will not know what was
there either.

Records committed during the backup may or may not be in it. The backup rests after each piece (healing/throttle.py), and reads
the next piece only when the receiver has taken the last one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing, suppress
from datetime import UTC, datetime

from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import Keyring, backup_key, fingerprint
from quorumvault.errors import Busy, NoQuorum, StoreCorrupt
from quorumvault.model import Owner
from quorumvault.protocol.anti_entropy import batches
from quorumvault.protocol.messages import Copied
from quorumvault.protocol.views import View
from quorumvault.server.backup.audit import Audit, Unfit
from quorumvault.server.backup.format import BrokenOff, Header, Piece, Trailer, Writer, seal
from quorumvault.server.backup.sources import Sources
from quorumvault.server.backup.union import Union
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.requests import ReplicaClient
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.replica.copy import merge_values
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import Gaps
from quorumvault.server.telemetry.event_log import Event

#: The number of the union's source that is not a disk: the owner names that this node knows.
_NAMES = 2
#: The outcome of a backup that failed for a reason other than too few disks.
REFUSED = "refused"


class Taking:
    """One backup, taken once. ``peers``: the peers to read from, the first that answers; ``key``: the key of its seal.

    ``known``: the owners that this node knows, because older stores have records without their owners' names.
    """

    def __init__(
        self,
        replicas: ReplicaClient,
        peers: Iterable[str],
        throttle: Throttle,
        view: View,
        header: Header,
        keyring: Keyring,
        key: bytes,
        known: Iterable[Owner],
    ) -> None:
        self.audit = Audit(keyring)
        #: The code of the outcome: "ok", or that of an error.
        self.outcome = "interrupted"
        self._sources = Sources(replicas, list(peers), view)
        self._throttle = throttle
        self._header = header
        self._key = key
        self._writer = Writer()
        #: The last key that was given out.
        self._given = b""
        #: By id. A record is joined when both disks have been read up to it, and that is behind all their owners' names.
        self._owners = {owner.id: owner for owner in known}
        self._union = Union(_NAMES + 1, lambda key, one, other: merge_values(keyring, self._owners.get, key, one, other))
        names = sorted((layout.owner_key(owner.id), owner.name.encode()) for owner in self._owners.values())
        self._union.add(_NAMES, [key for key, _ in names], [name for _, name in names], last=True)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The backup's bytes. Raises NoQuorum if it cannot begin; what keeps it from going on later is at its end, BrokenOff."""
        begun = False
        try:
            while not self._union.ended:
                began = self._throttle.begin()
                await self._ask()
                if not begun:
                    yield self._writer.write(self._header)
                    begun = True
                # On no thread that anybody waits for: to open each record takes longer than to read it.
                yield await self._advance(await asyncio.to_thread(self._union.ready))
                await self._throttle.rest(began)
            if unread := self._sources.unread():
                yield await self._advance(list(Gaps(unread).pairs().items()))
        except NoQuorum as error:
            self.outcome = error.code
            if not begun:
                raise
            yield self._writer.write(BrokenOff(error.code, str(error)))
        except (Unfit, StoreCorrupt) as unfit:
            self.outcome = REFUSED
            yield self._writer.write(BrokenOff(REFUSED, self._refusal(unfit)))
        else:
            yield self._writer.write(Trailer(self.audit.counts, sorted(self._sources.read), seal(self._key, self._writer.digest)))
            self.outcome = "ok"

    async def _advance(self, pairs: list[tuple[bytes, bytes]]) -> bytes:
        before = self.audit.copy()
        try:
            return await asyncio.to_thread(self._write, pairs)
        except Unfit:
            self.audit = before
            return await asyncio.to_thread(self._write, await self._without_rot(pairs))

    def _write(self, pairs: list[tuple[bytes, bytes]]) -> bytes:
        keys, values = [key for key, _ in pairs], [value for _, value in pairs]
        self.audit.look(keys, values)
        self._given = keys[-1] if keys else self._given
        return self._writer.write(Piece(keys, values))

    async def _without_rot(self, pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The same pairs with the third disk's records in place of rotten ones; if that disk has none, there is a gap."""
        found, knowing = dict(pairs), self.audit.copy()
        before = [key for key in found if key < layout.RECORD]
        knowing.look(before, [found[key] for key in before])
        rotten = await asyncio.to_thread(lambda: [key for key, value in pairs if knowing.rotten(key, value)])
        for batch in batches(rotten):
            told = await self._sources.fetch([key[1:] for key in batch])
            for key in batch:
                found[key] = told.get(key[1:], found[key])
                if knowing.rotten(key, found[key]):
                    del found[key]
                    self._sources.cannot_read(key[1:])
        return list(found.items())

    async def _ask(self) -> None:
        """Ask for the next piece of each source without one. Raises NoQuorum."""
        while wanted := self._union.wanted():
            pieces = await self._sources.pieces({source: self._union.after(source) for source in wanted})
            for source, piece in pieces.items():
                self._owners |= _owners_in(piece)
                self._union.add(source, piece.keys, piece.values, last=piece.last, until=piece.until)
            if self._sources.third_is_needed:
                self._sources.add_third(self._union.join_in(self._given))

    def _refusal(self, unfit: Exception) -> str:
        nodes = " and ".join(sorted(self._sources.read))
        return (
            f"{nodes} together have what could not be restored: {unfit}; take it through another node, "
            f"or when the scrub has mended that, for which all three have to be active"
        )


def _owners_in(piece: Copied) -> dict[bytes, Owner]:
    """Return the owners named in a piece, by id. Invalid names are skipped: the audit refuses them."""
    found: dict[bytes, Owner] = {}
    for key, value in zip(piece.keys, piece.values, strict=True):
        if key.startswith(layout.OWNER):
            with suppress(ValueError):
                owner = Owner(value.decode())
                found[owner.id] = owner
    return found


class Backups:
    """Takes backups through this node, one at a time, and notes each in the event log with ``note(event)``.

    ``healer()`` returns None on a node without a disk, ``owners()`` the owners in the key file; ``version`` is this program's.
    """

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
