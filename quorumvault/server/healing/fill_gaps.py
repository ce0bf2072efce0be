"""A node fills the gaps of its disk from both peers (protocol/fill_gaps.py): soon after its start, and until no gap is left.

The node first waits until all requests have ended that its previous process may have answered. Such a request might still count
that process's acknowledgement of a record that the disk has lost since, and then commit with a second acknowledgement from a disk
that this node has already read.

Rules kept here: what is not known is not absent.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from quorumvault.model import Owner
from quorumvault.protocol.anti_entropy import CannotCompare
from quorumvault.protocol.fill_gaps import AskReplica, CloseBuckets, Filled, Step, TakeRecords, certain, fill_gaps
from quorumvault.protocol.views import ViewId
from quorumvault.server.coordinator.exchange import drive
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.throttle import Throttle, pause
from quorumvault.server.replica.replica import Replica
from quorumvault.server.storage import layout

logger = logging.getLogger("quorumvault.healing")

#: Seconds until the next attempt after one that failed.
_AGAIN = 10.0


@dataclass(eq=False)
class GapFilling:
    """Used on the event loop's thread. ``seconds`` is the interval between attempts while gaps stay.

    ``rounds_end_after`` seconds after the start, no coordinator still counts acknowledgements of the previous process.
    """

    peers: Collection[str]
    replicas: ReplicaClient
    storage: Storage
    throttle: Throttle
    seconds: float
    rounds_end_after: float

    def __post_init__(self) -> None:
        #: By the event loop's clock: when the previous process's rounds have ended, and when the next attempt is due.
        self._ended: float | None = None
        self._due = 0.0

    def try_soon(self) -> None:
        """Make the next attempt due now, because something changed that may help."""
        self._due = 0.0

    async def once(self) -> Filled | None:
        """Fill gaps if that is due, and both peers can be asked. Returns None if nothing was done."""
        may_begin, now = max(self._rounds_ended(), self._due), asyncio.get_running_loop().time()
        if now < may_begin or not all(map(self.replicas.can_ask, self.peers)):
            return None
        self._due = now + self.seconds
        try:
            return await self._fill()
        except (NoAnswer, CannotCompare) as error:
            logger.debug("gaps: %s", error)
            self._due = now + min(self.seconds, _AGAIN)
            return None

    async def now(self) -> Filled | None:
        """Fill gaps for an operator, as soon as that is allowed. Returns None if it is not possible."""
        if await self._count():
            await pause(self._rounds_ended() - asyncio.get_running_loop().time())
        self.try_soon()
        return await self.once()

    async def give_up(self, *, read_first: bool) -> int:
        """Give up all gaps, as an operator says: records that this disk does not know are absent. Returns the number of gaps.

        ``read_first``: first take the records that both peers have there; this may raise NoAnswer and CannotCompare.
        """
        if read_first:
            await self._fill()
        return await on_storage_thread(self.storage, give_up_gaps)

    def _rounds_ended(self) -> float:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().time() + self.rounds_end_after
        return self._ended

    async def _count(self) -> int:
        return await on_storage_thread(self.storage, lambda replica: replica.gaps.count)

    async def _fill(self) -> Filled | None:
        before = await self._count()
        if not before:
            return None
        filled = await drive(fill_gaps(), self._take)
        left = await self._count()
        logger.info("%d gaps of the store were filled, %d are left; %d records were taken", before - left, left, filled.taken)
        return filled

    async def _take(self, step: Step) -> object:
        match step:
            case AskReplica(of=of, request=request):
                return await self.replicas.ask((self.replicas.node, *self.peers)[of], request.sent_in)
            case TakeRecords():
                began = self.throttle.begin()
                taken = await on_storage_thread(self.storage, lambda replica: take_records(replica, step))
                await self.throttle.rest(began)
                return taken
            case CloseBuckets(view=view, buckets=buckets):
                return await on_storage_thread(self.storage, lambda replica: close_gaps(replica, view, buckets))


def take_records(replica: Replica, step: TakeRecords) -> int:
    """Take those of both peers' records that are certain into the gaps. Returns how many of them changed this replica."""
    replica.learn(map(Owner, step.names.values()))
    acceptable = replica.inventory.acceptable
    taken = certain(acceptable(step.one), acceptable(step.other))
    return replica.merge([layout.RECORD + place for place in taken], list(taken.values()), into_gaps=True) or 0


def close_gaps(replica: Replica, view: ViewId, buckets: Collection[int]) -> None:
    """Close the gaps in these buckets, where both peers were read in ``view``. In another view the gaps stay."""
    if buckets and replica.is_active_in(view) and replica.has_reserve():
        replica.inventory.close_gaps(buckets)


def give_up_gaps(replica: Replica) -> int:
    """Close all gaps: records that this disk does not know are absent from now on. Returns the number of gaps closed."""
    gaps = replica.gaps.count
    if replica.has_reserve():
        replica.inventory.close_gaps(replica.gaps.buckets())
    return gaps - replica.gaps.count
