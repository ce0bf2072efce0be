"""What a node counts and measures, for Prometheus: GET /metrics. docs/operations.md says what each of it means.

    requests         one event each in the event log, counted on its way there (CountedRequests)
    rounds           what the coordinator tells its observer
    syncs            writes of the store, timed (storage/timed.py); the only ones that come from the storage thread
    the node itself  read when somebody asks (Reading)

Labels are names that this program knows: of operations, outcomes, nodes and states. Nothing that a caller sends becomes one, so
there is a bounded number of series, and no owner, token or value in them.

Counts are plain numbers here, and become prometheus-client's metric families when they are asked for. Its own Counter and
Histogram take ten times as long, some 12 microseconds a request, and add a ``_created`` series to each of ours.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from quorumvault.errors import Busy, Draining, NoQuorum, NotPermitted, RateLimited, Unauthenticated
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.views import Mode
from quorumvault.server.healing.hinted_handoff import Owed
from quorumvault.server.healing.join import Progress
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.telemetry.connection_refusals import Refusal
from quorumvault.server.telemetry.event_log import Event, EventSink

#: An active node that refuses writes, and one that is about to stop, say so in place of their disk's mode.
FULL = "full"
DRAINING = "draining"
STATES = (*(mode.value for mode in Mode), FULL, DRAINING)
#: Outcomes of requests that were refused for what their head says, for want of room, or for what their key has asked already; and
#: connections.
REJECTIONS = (*(kind.code for kind in (Unauthenticated, NotPermitted, Draining, Busy, RateLimited)), *map(str, Refusal))

#: How a comparison with a peer may end.
COMPARISONS = ("equal", "mended", "failed")

#: Seconds. A request takes a millisecond at best, and ends in a 503 after Timeouts.request at the latest.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Seconds. A sync takes 0.1 ms on a good disk, 10 on one that turns; after Timeouts.round nobody waits for it any more.
_SYNC_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Reading(NamedTuple):
    """How a node is at this moment. ``reachable`` counts active replicas, its own included; ``disk_free``: bytes, if known.

    ``owed``: what each peer is known to lack. ``joining``: how far this node's disk is, while it is no replica yet.
    ``reload_failed``: the last time that files were to be read again, one was refused. ``memory``: bytes that requests hold of
    their budget.
    """

    state: str
    reachable: int
    peers_up: Mapping[str, bool]
    in_flight: int
    disk_free: int | None
    owed: Mapping[str, Owed]
    scrub: ScrubCounts
    joining: Progress | None = None
    reload_failed: bool = False
    memory: int = 0


class _Histogram:
    """Counts values by the bucket they fall into. One thread observes; another may read, and is at most one value behind."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        bounds = [*map(str, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, itertools.accumulate(self._counts), strict=True)), self._sum)


class Metrics:
    """``read`` tells how the node is. Used on the event loop's thread, but for ``synced``."""

    def __init__(self, peers: Iterable[str], read: Callable[[], Reading]) -> None:
        self._read = read
        self._requests: Counter[tuple[str, str]] = Counter()
        self._items: Counter[str] = Counter()
        self._durations: dict[str, _Histogram] = {}
        self._rejected = dict.fromkeys(REJECTIONS, 0)
        self._read_repairs = 0
        self._fence_retries = 0
        self._handed_off = dict.fromkeys(peers, 0)
        self._comparisons = dict.fromkeys(COMPARISONS, 0)
        self._mended = 0
        self._syncs = _Histogram(_SYNC_BUCKETS)

    # What happened.

    def request(self, event: Event) -> None:
        """A request was answered, and this is its event."""
        operation, outcome = event.event, event.outcome or ""
        self._requests[operation, outcome] += 1
        if event.items:
            self._items[operation] += event.items
        if outcome in self._rejected:
            self._rejected[outcome] += 1
        durations = self._durations.get(operation)
        if durations is None:
            durations = self._durations[operation] = _Histogram(_REQUEST_BUCKETS)
        durations.observe((event.duration_ms or 0.0) / 1000)

    def refused(self, refusal: Refusal) -> None:
        """A connection was refused or ended, or a request on it, before the application had it."""
        self._rejected[refusal] += 1

    def read_repaired(self, records: int) -> None:
        self._read_repairs += records

    def fence_retried(self) -> None:
        self._fence_retries += 1

    def handed_off(self, peer: str, records: int) -> None:
        """The peer has all that it was owed."""
        self._handed_off[peer] += records

    def compared(self, outcome: Compared | str) -> None:
        """This replica was compared with a peer's, or could not be."""
        if isinstance(outcome, str):
            self._comparisons["failed"] += 1
            return
        mended = outcome.taken + outcome.given
        self._comparisons["mended" if mended or outcome.raised else "equal"] += 1
        self._mended += mended

    def synced(self, seconds: float) -> None:
        """The store wrote a batch and synced it. Called on the storage thread."""
        self._syncs.observe(seconds)

    # What is told of it.

    def text(self) -> bytes:
        """All of it, in Prometheus' text format 0.0.4."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Implements prometheus_client's Collector."""
        yield from self._about_requests()
        reading = self._read()
        yield from self._about_node(reading)
        yield from self._about_replication(reading)
        yield from self._about_healing(reading.scrub)

    def _about_requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "quorumvault_requests_total",
            "Requests to operations that need an API key, by how they ended: ok, or the code of the error.",
            labels=["operation", "outcome"],
        )
        for (operation, outcome), count in self._requests.items():
            requests.add_metric([operation, outcome], count)
        durations = HistogramMetricFamily(
            "quorumvault_request_duration_seconds", "From a request's head to its answer.", labels=["operation"]
        )
        for operation, histogram in self._durations.items():
            histogram.add_to(durations, [operation])
        items = CounterMetricFamily(
            "quorumvault_items_total", "Values and tokens in those requests, nulls left out.", labels=["operation"]
        )
        for operation, count in self._items.items():
            items.add_metric([operation], count)
        rejected = CounterMetricFamily(
            "quorumvault_rejected_total",
            "Requests refused before anything was done for them, by the code of the error, and connections refused or ended.",
            labels=["reason"],
        )
        for reason, count in self._rejected.items():
            rejected.add_metric([reason], count)
        yield from (requests, durations, items, rejected)

    def _about_node(self, reading: Reading) -> Iterator[Metric]:
        up = GaugeMetricFamily("quorumvault_peer_up", "1 if this node has a connection to the peer, else 0.", labels=["peer"])
        for peer, is_up in reading.peers_up.items():
            up.add_metric([peer], is_up)
        state = GaugeMetricFamily(
            "quorumvault_node_state", "1 for the state that this node is in, 0 for the others.", labels=["state"]
        )
        for name in STATES:
            state.add_metric([name], name == reading.state)
        reachable = GaugeMetricFamily(
            "quorumvault_quorum_reachable",
            "Active replicas within this node's reach, its own included. 2 are needed.",
            value=reading.reachable,
        )
        joining = reading.joining or Progress()
        copied = GaugeMetricFamily(
            "quorumvault_join_records",
            "Records that this node's joining disk has copied, from both others; 0 for an active one.",
            value=joining.records,
        )
        expected = GaugeMetricFamily(
            "quorumvault_join_records_expected",
            "About how many those will be at the end; 0 while that is not known.",
            value=joining.expected or 0,
        )
        in_flight = GaugeMetricFamily(
            "quorumvault_in_flight", "Requests under way that have been let in.", value=reading.in_flight
        )
        disk_free = GaugeMetricFamily(
            "quorumvault_disk_free_bytes", "Free space on the file system of this node's data directory."
        )
        if reading.disk_free is not None:
            disk_free.add_metric([], reading.disk_free)
        reload_failed = GaugeMetricFamily(
            "quorumvault_reload_failed",
            "1 while the API keys or the peers' addresses in force are not those of the files, since these were refused; else 0.",
            value=reading.reload_failed,
        )
        memory = GaugeMetricFamily(
            "quorumvault_request_memory_bytes", "What requests hold of limits.memory_bytes, as reckoned.", value=reading.memory
        )
        yield from (up, state, reachable, copied, expected, in_flight, memory, disk_free, reload_failed)

    def _about_replication(self, reading: Reading) -> Iterator[Metric]:
        records = GaugeMetricFamily(
            "quorumvault_peer_owed_records",
            "Records that this node committed without the peer's acknowledgement, and has not handed off yet. Those that reads "
            "have repaired there since are still counted.",
            labels=["peer"],
        )
        seconds = GaugeMetricFamily(
            "quorumvault_peer_owed_seconds",
            "Since the oldest of what the peer is owed was committed; 0 if there is none.",
            labels=["peer"],
        )
        for peer, owed in reading.owed.items():
            records.add_metric([peer], owed.records)
            seconds.add_metric([peer], owed.seconds)
        syncs = HistogramMetricFamily(
            "quorumvault_sync_duration_seconds", "One write to this node's store, synced. Requests at the same time share one."
        )
        self._syncs.add_to(syncs, [])
        read_repairs = CounterMetricFamily(
            "quorumvault_read_repairs_total",
            "Records that a read found on one replica only, and wrote to a second.",
            value=self._read_repairs,
        )
        fence_retries = CounterMetricFamily(
            "quorumvault_fence_retries_total",
            "Batches that met a rotated epoch, and were derived again for it.",
            value=self._fence_retries,
        )
        yield from (records, seconds, syncs, read_repairs, fence_retries)

    def _about_healing(self, scrub: ScrubCounts) -> Iterator[Metric]:
        handed_off = CounterMetricFamily(
            "quorumvault_handoff_records_total", "Records that this node brought to a peer that had missed them.", labels=["peer"]
        )
        for peer, count in self._handed_off.items():
            handed_off.add_metric([peer], count)
        comparisons = CounterMetricFamily(
            "quorumvault_anti_entropy_total",
            "Comparisons of this replica with a peer's: nothing differed, something was mended, or it did not come about.",
            labels=["outcome"],
        )
        for outcome, count in self._comparisons.items():
            comparisons.add_metric([outcome], count)
        totals = (
            ("quorumvault_anti_entropy_records_total", "Records that comparisons brought here or to a peer.", self._mended),
            ("quorumvault_scrub_records_total", "Records that this node read again from its disk and checked.", scrub.checked),
            ("quorumvault_scrub_corrupt_total", "Records among those that were not what was written.", scrub.corrupt),
            ("quorumvault_scrub_mended_total", "Of these, those that were replaced by what the other nodes have.", scrub.mended),
        )
        yield from (handed_off, comparisons)
        for name, help_text, value in totals:
            yield CounterMetricFamily(name, help_text, value=value)


class CountedRequests:
    """An event log in which every event is a request's: counts each, and passes it on."""

    def __init__(self, log: EventSink, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    @property
    def refuses(self) -> str | None:
        return self._log.refuses

    async def write(self, event: Event) -> bool:
        may_be_answered = await self._log.write(event)
        unsaid = event.outcome == "ok" and not may_be_answered
        self._metrics.request(msgspec.structs.replace(event, outcome=NoQuorum.code) if unsaid else event)
        return may_be_answered
