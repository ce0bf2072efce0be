"""What the API is built on: handed in by the node, or by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quorumvault.api.admission import Admission
from quorumvault.api.health import Health
from quorumvault.config import Limits, Timeouts
from quorumvault.coordinator import Vault
from quorumvault.events import Event
from quorumvault.fields import FieldSet
from quorumvault.keyfile import KeyTable


class EventSink(Protocol):
    """Where the line about a request goes. Never raises: a log that cannot be written shows in /health.

    ``refuses``: why no request is to be served, since its line could not be written; None if requests are served. ``write``
    returns whether the request may be answered: by default all may, see events.on_failure.
    """

    @property
    def refuses(self) -> str | None: ...

    async def write(self, event: Event) -> bool: ...


@dataclass(frozen=True, slots=True)
class Services:
    """``keys`` gives the table in force; ``metrics`` Prometheus' text format; ``clock`` is monotonic, in seconds;
    ``request_ids`` makes a fresh id."""

    vault: Vault
    keys: Callable[[], KeyTable]
    fields: FieldSet
    events: EventSink
    limits: Limits
    timeouts: Timeouts
    health: Callable[[], Health]
    metrics: Callable[[], bytes]
    admission: Admission
    clock: Callable[[], float]
    request_ids: Callable[[], str]
