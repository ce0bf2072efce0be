"""The dependencies of an operation: the services of its node, and the admitted request (``AdmittedRequest``)."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from starlette.requests import ClientDisconnect

from quorumvault.config.api_keys import KeyTable
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.errors import TooLarge
from quorumvault.formats.fields import FieldSet
from quorumvault.model import Owner
from quorumvault.server.coordinator.vault import Vault
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.body import Turns
from quorumvault.server.http.health import Health
from quorumvault.server.http.memory import LARGE, Hold
from quorumvault.server.telemetry.event_log import EventSink

#: Most bytes of a stored record beside its value: header, tag, padding.
_SEAL_BYTES = 64


@dataclass(frozen=True, slots=True)
class Services:
    """The services of a node, which the node or a test passes in.

    ``keys`` returns the table in force; ``knows_revoked`` returns whether this node knows every revoked key; if not,
    ``learn_revoked`` asks for them, and returns once the node knows or cannot know soon.
    ``metrics`` returns Prometheus' text format; ``clock`` is monotonic, in seconds; ``wall`` in seconds since 1970;
    ``request_ids`` makes a fresh id.
    """

    vault: Vault
    keys: Callable[[], KeyTable]
    knows_revoked: Callable[[], bool]
    learn_revoked: Callable[[], Awaitable[None]]
    fields: FieldSet
    events: EventSink
    limits: Limits
    timeouts: Timeouts
    health: Callable[[], Health]
    metrics: Callable[[], bytes]
    admission: Admission
    clock: Callable[[], float]
    wall: Callable[[], float]
    request_ids: Callable[[], str]


@dataclass(slots=True)
class Counts:
    """What an operation reports for its event, as far as it got. ``items`` counts the values asked about, nulls left out."""

    epoch: int | None = None
    items: int | None = None
    found: int | None = None
    not_found: int | None = None
    replaced: int | None = None


@dataclass(slots=True)
class AdmittedRequest:
    """One admitted request. ``body`` is empty for a GET; ``memory`` is its share of the node's budget; ``turns`` are its turns on
    the event loop."""

    services: Services
    owner: Owner
    body: bytes = field(repr=False)
    counts: Counts
    memory: Hold
    turns: Turns
    #: Takes a number of values out of the key's rates. Raises RateLimited, TooManyItems.
    spend: Callable[[int], None] = field(repr=False)
    #: Raises Unauthenticated or NoQuorum if the key must no longer be accepted, or this node cannot tell.
    require_key: Callable[[], None] = field(repr=False)
    #: Returns whether the client has left.
    gone: Callable[[], bool] = field(repr=False)
    #: Bytes of the records that have been read so far.
    read: int = 0
    #: The vault was asked: what is wrong with the request itself would have been answered before.
    asked: bool = False

    def charge(self, items: int, cost: int | None = None) -> None:
        """Charge the key's rates for the values that the operation asks about next, once it has the memory.

        Repeats count, nulls do not. ``cost`` is what counts against the rates, by default ``items``. Raises RateLimited,
        TooManyItems.
        """
        self.spend(items if cost is None else cost)
        self.counts.items = items

    @contextlib.asynccontextmanager
    async def turn(self, items: int) -> AsyncIterator[None]:
        """Within the block, the vault may be asked about so many values. Waits for a turn, then charges the key's rates.

        Raises Busy; what ``require_key`` and ``charge`` raise; and if the wait took time, ClientDisconnect.
        """
        seconds = self.services.timeouts.round
        async with self.services.admission.queue.turn(self.owner, items, seconds) as waited:
            if waited and self.gone():
                raise ClientDisconnect
            self.require_key()
            self.asked = True
            self.charge(items)
            yield

    def vault(self) -> Vault:
        """The vault, for a question that waits for no turn. Raises what ``require_key`` raises."""
        self.require_key()
        self.asked = True
        return self.services.vault

    async def pay(self, cost: int) -> None:
        """Wait until the node has this many bytes for the request; if they are many, for the lane too. Raises TooLarge, Busy.

        The key may have been revoked meanwhile. Once the vault was asked, so that values are at stake, it raises Unauthenticated
        then, or NoQuorum if that cannot be told.
        """
        if cost > LARGE:
            await self.memory.enter_lane(self.services.timeouts.request)
        at_once = self.memory.take_at_once(cost)
        if not at_once:
            await self.memory.wait_for(cost, self.services.timeouts.round)
        if self.asked and (cost > LARGE or not at_once):
            self.require_key()

    def take_read(self, size: int) -> None:
        """Pay for more records that were read, both in their sealed and in their opened form. Raises TooLarge, Busy."""
        self.memory.take(2 * size)
        self.read += size
        if self.read > self.services.limits.answer_bytes + _SEAL_BYTES * (self.counts.items or 0):
            raise TooLarge("the values of these tokens are larger than one answer may be (GET /limits); ask for fewer at once")


#: The body of a success: whole, or in pieces that are made as they leave.
Content: TypeAlias = bytes | Iterator[bytes]
#: An operation. Raises RequestError unless it succeeds.
Answer: TypeAlias = Callable[[AdmittedRequest], Awaitable[Content]]
