"""What the API is built on: handed in by the node, or by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quorumvault.config.api_keys import KeyTable
from quorumvault.config.cluster import Limits, Timeouts
from quorumvault.formats.fields import FieldSet
from quorumvault.server.coordinator.coordinator import Vault
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.health import Health
from quorumvault.server.telemetry.event_log import EventSink


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
