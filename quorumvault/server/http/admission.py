"""Admission: gives each request a place, or refuses it before its body is read. Most 429s come from here.

    429 busy          Admission.enter: all places (limits.in_flight), or all those that one owner may have, are taken
                      memory.py: the node's bytes for requests, or the owner's share of them, are used up
                      vault_queue.py: other requests for many values take too long
                      coordinator/coordinator.py: too many reads of large values wait
                      routes.py: no connection is free (create_crowded_app); backup/take.py: a second backup at a time
    429 rate-limited  rate_limits.py: the key's rate in requests or values is used up
    503 draining      Admission.enter: the node is about to stop

One owner may hold only a share of the places and of the memory (``limits.key_share``). Otherwise an owner whose bodies arrive
slowly could shut out all others. All API keys of an owner use that one share, because an owner may have any number of keys. Only
rates are counted by key: they are configured by key. A request holds its place until the answer has left, or the connection is
gone.

SERVING --announce_stop--> LEAVING --refuse_new--> DRAINING
/readyz 200                /readyz 503             /readyz 503
requests served            requests served         new ones: 503 draining; those under way end
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

from quorumvault.config.limits import Limits, Timeouts
from quorumvault.errors import Busy, Draining, WriteOutcome
from quorumvault.model import Owner
from quorumvault.server.http.memory import Memory
from quorumvault.server.http.vault_queue import VaultQueue

logger = logging.getLogger("quorumvault.http")


class Phase(Enum):
    SERVING = "serving"
    LEAVING = "leaving"
    DRAINING = "draining"


class Admission:
    """The places and the memory of a node. Used on the event loop's thread only. ``on_idle`` is passed on to Memory."""

    def __init__(self, limits: Limits, on_idle: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._places_of_an_owner = max(1, limits.in_flight * limits.key_share // 100)
        self._places: dict[Owner, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.memory = Memory(limits, on_idle)
        self.queue = VaultQueue()
        self.phase = Phase.SERVING
        self.in_flight = 0

    def announce_stop(self) -> None:
        """Let /readyz fail, so that load balancers turn to other nodes. Requests are still served."""
        self.phase = Phase.LEAVING

    def refuse_new(self) -> None:
        """Answer new requests with 503 draining."""
        self.phase = Phase.DRAINING

    async def idle(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()

    async def drain(self, timeouts: Timeouts) -> None:
        """Announce the stop, refuse new requests, and finish those under way."""
        logger.info("draining")
        self.announce_stop()
        await asyncio.sleep(timeouts.drain_notice)
        self.refuse_new()
        try:
            async with asyncio.timeout(timeouts.drain):
                await self.idle()
        except TimeoutError:
            logger.warning("%d requests were still under way after %g s", self.in_flight, timeouts.drain)

    def enter(self, owner: Owner, declared_bytes: int, outcome: WriteOutcome | None) -> Place:
        """Return a place for a request with a body of this length. Raises Busy (429), Draining (503), TooLarge (413)."""
        if self.phase is Phase.DRAINING:
            raise Draining("this node is about to stop; send the request to another one", outcome=outcome)
        if self.in_flight >= self._limits.in_flight:
            raise Busy(f"{self._limits.in_flight} requests are under way here; wait, or send the request to another node")
        held = self._places.get(owner, 0)
        if held >= self._places_of_an_owner:
            detail = f"owner {owner.name} has {held} requests under way here, as many as an owner may have; wait for one of them"
            raise Busy(detail)
        place = Place(self, owner)
        self._places[owner] = held + 1
        self.in_flight += 1
        self._idle.clear()
        try:
            place.memory.grow_body(declared_bytes)
        except BaseException:
            place.close()
            raise
        return place

    def leave(self, owner: Owner) -> None:
        """Take a place back. Only Place.close calls it."""
        left = self._places[owner] - 1
        if left:
            self._places[owner] = left
        else:
            del self._places[owner]
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()


class Place:
    """The place of one request, until it is closed. ``memory`` is what the request holds of the node's budget of bytes."""

    __slots__ = ("_admission", "_open", "_owner", "memory")

    def __init__(self, admission: Admission, owner: Owner) -> None:
        self._admission = admission
        self._owner = owner
        self._open = True
        self.memory = admission.memory.hold(owner)

    def close(self) -> None:
        """Give the place and its memory back. Further calls do nothing."""
        if self._open:
            self._open = False
            self.memory.release()
            self._admission.leave(self._owner)
