"""Observers of a node's coordinator and healing: they count in the metrics, and write an event where operators want one."""

from collections.abc import Callable
from dataclasses import dataclass

from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.messages import Put, RaiseEpoch, RoundId
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.healing.healer import Healer
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.telemetry.event_log import Event, EventLog
from quorumvault.server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class CoordinatorObserver:
    """Implements Observer (coordinator.py)."""

    metrics: Metrics
    events: EventLog
    acknowledged: Callable[[bytes, Mark], None]
    committed: Callable[[RoundId], None]
    healer: Callable[[], Healer | None]

    def read_repaired(self, node: str, records: int) -> None:
        self.metrics.read_repaired(records)
        self.events.note(Event(event="read_repair", peer=node, items=records, outcome="ok"))

    def looked_up(self, alone: int, by_quorum: int) -> None:
        self.metrics.looked_up(alone, by_quorum)

    def fence_retried(self) -> None:
        self.metrics.fence_retried()

    def left_over(self) -> None:
        if (healer := self.healer()) is not None:
            healer.anti_entropy.left_over()

    def hedged(self, hedge: Hedge) -> None:
        self.metrics.hedged(hedge)

    def unacknowledged(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        if (healer := self.healer()) is not None:
            healer.handoff.missed(node, disk, request)


@dataclass(frozen=True, slots=True)
class HealingObserver:
    """Implements Observer (healing/healer.py)."""

    metrics: Metrics
    events: EventLog

    def handed_off(self, node: str, records: int) -> None:
        self.metrics.handed_off_to(node, records)
        self.events.note(Event(event="handoff", peer=node, items=records, outcome="ok"))

    def compared(self, node: str, outcome: Compared | str) -> None:
        self.metrics.compared(outcome)
        if isinstance(outcome, str):
            self.events.note(Event(event="anti_entropy", peer=node, outcome="failed", detail=outcome))
        else:
            detail = f"{outcome.buckets} buckets differed, {outcome.taken} records taken, {outcome.given} given, "
            detail += f"{outcome.raised} epochs raised"
            mended = outcome.taken + outcome.given
            self.events.note(Event(event="anti_entropy", peer=node, items=mended, outcome="ok", detail=detail))

    def scrubbed(self, counts: ScrubCounts) -> None:
        detail = f"since the start {counts.checked} records checked, {counts.corrupt} corrupt, {counts.mended} mended"
        self.events.note(Event(event="scrub", outcome="ok", detail=detail))
