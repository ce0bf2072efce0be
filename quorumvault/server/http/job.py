"""One request that was let in, as its operation sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from quorumvault.errors import TooLarge
from quorumvault.model import Owner
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.memory import LARGE, Hold
from quorumvault.server.http.turns import Turns

#: What a stored record has beside its value, at the most: header, tag, padding.
_SEAL_BYTES = 64


@dataclass(slots=True)
class Counts:
    """What an operation tells the event log about itself, as far as it got. ``items``: values asked about, nulls left out."""

    epoch: int | None = None
    items: int | None = None
    found: int | None = None
    not_found: int | None = None
    replaced: int | None = None


@dataclass(slots=True)
class Job:
    """``body`` is empty for a GET. ``memory`` is what the request holds of the node's budget; ``turns`` are those that it has
    on the event loop."""

    services: Services
    owner: Owner
    body: bytes = field(repr=False)
    counts: Counts
    memory: Hold
    turns: Turns
    #: Takes so many values out of what the key may ask. Raises RateLimited, TooManyItems.
    spend: Callable[[int], None] = field(repr=False)
    #: Bytes of the records that were read so far.
    read: int = 0

    def ask(self, items: int, cost: int | None = None) -> None:
        """So many values are about to be asked about: each operation says so right before it does, once it has the memory.

        Found or not, repeats too, nulls left out. ``cost``: how many count against the key's rate, if it is another number.
        Raises RateLimited, TooManyItems.
        """
        self.spend(items if cost is None else cost)
        self.counts.items = items

    async def pay(self, cost: int) -> None:
        """Wait until the node has this many bytes for the request, and time if they are many. Raises TooLarge, Busy."""
        if cost > LARGE:
            await self.memory.enter_lane(self.services.timeouts.request)
        if not self.memory.take_at_once(cost):
            await self.memory.wait_for(cost, self.services.timeouts.round)

    def take_read(self, size: int) -> None:
        """Pay for more records that were read, which are sealed and will be opened beside that. Raises TooLarge, Busy."""
        self.memory.take(2 * size)
        self.read += size
        if self.read > self.services.limits.answer_bytes + _SEAL_BYTES * (self.counts.items or 0):
            raise TooLarge("the values of these tokens are larger than one answer may be (GET /limits); ask for fewer at once")


#: The body of a success: whole, or in pieces, each made when it is about to leave.
Content: TypeAlias = bytes | Iterator[bytes]
#: An operation. Raises RequestError for whatever is no success.
Answer: TypeAlias = Callable[[Job], Awaitable[Content]]
