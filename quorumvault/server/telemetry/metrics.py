"""The metrics of a node, for Prometheus: GET /metrics. docs/operations.md says what each one means.

``TABLE`` has one row for each metric: its name, kind, help, labels, and how it is read. Some metrics are counted here, as
requests end and observers report (``Counts``); the others are read from the node on each scrape (``Reading``).

Labels are names that this program knows: of operations, outcomes, nodes and states, and ids of API keys in the key file. Nothing
that a caller sends becomes a label, so the number of series is bounded, and no label has an owner, token or value.

Counts are plain numbers, and become prometheus-client's metric families on each scrape. The library's own Counter and Histogram
take ten times as long, some 12 microseconds a request, and add a ``_created`` series to each metric.
"""

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from quorumvault.errors import Busy, Draining, NotPermitted, RateLimited, Unauthenticated
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.hinted_handoff import Owed
from quorumvault.protocol.join import Progress
from quorumvault.protocol.views import Mode
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.telemetry.connection_refusals import Refusal
from quorumvault.server.telemetry.event_log import Event

#: An active node that refuses writes, and one that is about to stop, say so in place of their disk's mode.
FULL: Final = "full"
DRAINING: Final = "draining"
STATES: Final = (*(mode.value for mode in Mode), FULL, DRAINING)
#: Outcomes of requests that were refused because of their head, for lack of room, or because of their key's rate; and of
#: connections that were refused or ended.
REJECTIONS: Final = (*(kind.code for kind in (Unauthenticated, NotPermitted, Draining, Busy, RateLimited)), *map(str, Refusal))
#: How a comparison with a peer may end.
COMPARISONS: Final = ("equal", "mended", "failed")

#: Seconds. A request takes a millisecond at best, and ends in a 503 after Timeouts.request at the latest.
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Seconds. A sync takes 0.1 ms on a good disk, 10 on one that turns; after Timeouts.round nobody waits for it any more.
_SYNC_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Reading(NamedTuple):
    """The state of a node at this moment, for the gauges.

    ``reachable`` counts active replicas, this node's own included; ``disk_free`` is in bytes, None if unknown; ``owed`` is what
    each peer is known to lack; ``joining`` is the progress of a disk that is no replica yet; ``reload_failed`` says that the
    last reload refused a file; ``certificates`` and ``api_keys`` (by id, of those that have an end) are the seconds for which
    each is valid yet; ``revoked_keys`` counts the keys that are revoked; ``memory`` is in bytes that requests hold of their
    budget. ``records`` and ``store_bytes`` are what the store has and takes. ``reloads`` counts reloads by outcome;
    ``log_failures`` and ``log_lost`` what befell the event log. ``build`` is the node's version and its Python's.
    ``filter_bytes`` is the memory of the filter of keys; ``spared`` counts the look-ups of writes that it answered,
    ``looked_up`` those that went to the store. ``cache_hits`` counts settled records that were in memory, ``cache_misses`` those
    that were not.
    """

    state: str
    reachable: int
    peers_up: Mapping[str, bool]
    in_flight: int
    disk_free: int | None
    owed: Mapping[str, Owed]
    scrub: ScrubCounts
    joining: Progress | None = None
    damaged: Mapping[str, bool] = {}
    gaps: Mapping[str, int] = {}
    reload_failed: bool = False
    memory: int = 0
    filter_bytes: int = 0
    spared: int = 0
    looked_up: int = 0
    certificates: Mapping[str, float] = {}
    api_keys: Mapping[str, float] = {}
    revoked_keys: int = 0
    records: int = 0
    store_bytes: int = 0
    reloads: Mapping[str, int] = {}
    log_failures: int = 0
    log_lost: int = 0
    build: tuple[str, ...] = ("", "")
    cache_hits: int = 0
    cache_misses: int = 0


class Histogram:
    """Counts values by the bucket they fall into. One thread observes; another may read, and is at most one value behind."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound with the number of values up to it, as Prometheus wants them."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, itertools.accumulate(self._counts), strict=True))


#: The series of one metric: the values of its labels (a lone one without the tuple), and the number or the histogram.
_Series: TypeAlias = Mapping[tuple[str, ...], float] | Mapping[str, float] | Mapping[str, Histogram]


class Counts:
    """Everything that was counted in this process since it started."""

    def __init__(self, peers: Iterable[str]) -> None:
        self.requests: Counter[tuple[str, ...]] = Counter()
        self.items: Counter[str] = Counter()
        self.durations: dict[str, Histogram] = {}
        self.rejected = dict.fromkeys(REJECTIONS, 0)
        self.read_repairs = 0
        self.fence_retries = 0
        self.lookups = dict.fromkeys(("one", "quorum"), 0)
        self.hedges: dict[str, int] = dict.fromkeys(Hedge, 0)
        self.handed_off = dict.fromkeys(peers, 0)
        self.comparisons = dict.fromkeys(COMPARISONS, 0)
        self.mended = 0
        self.syncs = Histogram(_SYNC_BUCKETS)


class Kind(Enum):
    COUNTER = CounterMetricFamily
    GAUGE = GaugeMetricFamily
    HISTOGRAM = HistogramMetricFamily


class Row(NamedTuple):
    """One metric. ``read`` returns its series; what is no mapping is the only one, without labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    read: Callable[[Counts, Reading], _Series | float | Histogram]
    help: str

    def family(self, counts: Counts, reading: Reading) -> Metric:
        """The metric with its series, as prometheus-client writes it."""
        family = self.kind.value(f"quorumvault_{self.name}", self.help, labels=self.labels)
        series = self.read(counts, reading)
        for labels, value in (series if isinstance(series, Mapping) else {(): series}).items():
            shown = (value.buckets(), value.sum) if isinstance(value, Histogram) else (value,)
            family.add_metric((labels,) if isinstance(labels, str) else labels, *shown)
        return family  # type: ignore[no-any-return]  # by kind


# Two lines a row, so that it reads as a table.
# fmt: off
TABLE: Final = (
    Row("build_info", Kind.GAUGE, ("version", "python"), lambda _, reading: {reading.build: 1},
        "1; which version of QuorumVault this is, on which version of Python."),
    Row("requests_total", Kind.COUNTER, ("operation", "outcome"), lambda counts, _: counts.requests,
        "Requests to operations that need an API key, by how they ended: ok, or the code of the error."),
    Row("request_duration_seconds", Kind.HISTOGRAM, ("operation",), lambda counts, _: counts.durations,
        "From a request's head to its answer."),
    Row("items_total", Kind.COUNTER, ("operation",), lambda counts, _: counts.items,
        "Values and tokens in those requests, nulls left out."),
    Row("rejected_total", Kind.COUNTER, ("reason",), lambda counts, _: counts.rejected,
        "Requests refused before anything was done for them, by the code of the error, and connections refused or ended."),
    Row("peer_up", Kind.GAUGE, ("peer",), lambda _, reading: reading.peers_up,
        "1 if this node has a connection to the peer, else 0."),
    Row("node_state", Kind.GAUGE, ("state",), lambda _, reading: {state: state == reading.state for state in STATES},
        "1 for the state that this node is in, 0 for the others."),
    Row("quorum_reachable", Kind.GAUGE, (), lambda _, reading: reading.reachable,
        "Active replicas within this node's reach, its own included. 2 are needed."),
    Row("store_damaged", Kind.GAUGE, ("node",), lambda _, reading: reading.damaged,
        "1 for a node, this one or a peer, that says that its store cannot all be read, or has lost something; 0 for any other."),
    Row("store_gaps", Kind.GAUGE, ("node",), lambda _, reading: reading.gaps,
        "Parts of a node's store, this one's or a peer's, that could not be read, so that it does not know what it had there."),
    Row("join_records", Kind.GAUGE, (), lambda _, reading: reading.joining.records if reading.joining else 0,
        "Records that this node's joining disk has copied, from both others; 0 for an active one."),
    Row("join_records_expected", Kind.GAUGE, (), lambda _, reading: (reading.joining and reading.joining.expected) or 0,
        "About how many those will be at the end; 0 while that is not known."),
    Row("in_flight", Kind.GAUGE, (), lambda _, reading: reading.in_flight,
        "Requests under way that have been let in."),
    Row("request_memory_bytes", Kind.GAUGE, (), lambda _, reading: reading.memory,
        "What requests hold of limits.memory_bytes, as reckoned."),
    Row("disk_free_bytes", Kind.GAUGE, (), lambda _, reading: {} if reading.disk_free is None else reading.disk_free,
        "Free space on the file system of this node's data directory."),
    Row("store_records", Kind.GAUGE, (), lambda _, reading: reading.records,
        "Records in this node's store, as far as it has counted them since its start, which takes seconds a million."),
    Row("store_bytes", Kind.GAUGE, (), lambda _, reading: reading.store_bytes,
        "Size of the files of this node's store."),
    Row("reloads_total", Kind.COUNTER, ("outcome",), lambda _, reading: reading.reloads,
        "Times that API keys, peers' addresses and certificates were read again: ok, or failed if a file was refused."),
    Row("event_log_failures_total", Kind.COUNTER, (), lambda _, reading: reading.log_failures,
        "Times that the event log could not be written, or not in time, after it could."),
    Row("event_log_lost_total", Kind.COUNTER, (), lambda _, reading: reading.log_lost,
        "Events that have no line in the event log, since its queue was full."),
    Row("reload_failed", Kind.GAUGE, (), lambda _, reading: reading.reload_failed,
        "1 while API keys, peers' addresses or certificates in force are not those of the files, as these were refused; else 0."),
    Row("certificate_expiry_seconds", Kind.GAUGE, ("use",), lambda _, reading: reading.certificates,
        "Until this node's certificate for the other nodes or the API ends, or its list of revoked ones; below 0 once it has."),
    Row("api_key_expiry_seconds", Kind.GAUGE, ("key_id",), lambda _, reading: reading.api_keys,
        "Until this API key ends, by this node's clock, if it has an end and is not revoked; below 0 once it has ended."),
    Row("revoked_api_keys", Kind.GAUGE, (), lambda _, reading: reading.revoked_keys,
        "API keys that this node knows to be revoked in the whole cluster."),
    Row("peer_owed_records", Kind.GAUGE, ("peer",), lambda _, reading: {peer: o.records for peer, o in reading.owed.items()},
        "Records that this node committed without the peer's acknowledgement, and has not handed off yet. Those that reads "
        "have repaired there since are still counted."),
    Row("peer_owed_seconds", Kind.GAUGE, ("peer",), lambda _, reading: {peer: o.seconds for peer, o in reading.owed.items()},
        "Since the oldest of what the peer is owed was committed; 0 if there is none."),
    Row("sync_duration_seconds", Kind.HISTOGRAM, (), lambda counts, _: counts.syncs,
        "One write to this node's store, synced. Requests at the same time share one."),
    Row("key_filter_bytes", Kind.GAUGE, (), lambda _, reading: reading.filter_bytes,
        "Memory of the filter that knows which keys this node's store does not have; 0 until it has begun to count its records."),
    Row("write_lookups_total", Kind.COUNTER, ("answered_by",),
        lambda _, reading: {"filter": reading.spared, "store": reading.looked_up},
        "Keys that writes asked for, by what told whether the store has them."),
    Row("lookups_total", Kind.COUNTER, ("by",), lambda counts, _: counts.lookups,
        "Tokens looked up, by how many nodes told of each: one, which knew it to be settled, or a quorum."),
    Row("settled_lookups_total", Kind.COUNTER, ("answered_by",),
        lambda _, reading: {"memory": reading.cache_hits, "store": reading.cache_misses},
        "Settled records that this node's replica was asked for, by where it looked them up."),
    Row("read_repairs_total", Kind.COUNTER, (), lambda counts, _: counts.read_repairs,
        "Records that a read found on one replica only, and wrote to a second."),
    Row("fence_retries_total", Kind.COUNTER, (), lambda counts, _: counts.fence_retries,
        "Batches that met a rotated epoch, and were derived again for it."),
    Row("hedges_total", Kind.COUNTER, ("outcome",), lambda counts, _: counts.hedges,
        "Reads that met a late replica: the third was asked too, or was not, or in its place; and those that tried it again."),
    Row("handoff_records_total", Kind.COUNTER, ("peer",), lambda counts, _: counts.handed_off,
        "Records that this node brought to a peer that had missed them."),
    Row("anti_entropy_total", Kind.COUNTER, ("outcome",), lambda counts, _: counts.comparisons,
        "Comparisons of this replica with a peer's: nothing differed, something was mended, or it did not come about."),
    Row("anti_entropy_records_total", Kind.COUNTER, (), lambda counts, _: counts.mended,
        "Records that comparisons brought here or to a peer."),
    Row("scrub_records_total", Kind.COUNTER, (), lambda _, reading: reading.scrub.checked,
        "Records that this node read again from its disk and checked."),
    Row("scrub_corrupt_total", Kind.COUNTER, (), lambda _, reading: reading.scrub.corrupt,
        "Records among those that were not what was written."),
    Row("scrub_mended_total", Kind.COUNTER, (), lambda _, reading: reading.scrub.mended,
        "Of these, those that were replaced by what the other nodes have."),
)
# fmt: on


class Metrics(Counts):
    """Counts what observers report, and shows all of ``TABLE``. ``read`` returns the node's Reading.

    Used on the event loop's thread, except ``synced``, which the storage thread calls.
    """

    def __init__(self, peers: Iterable[str], read: Callable[[], Reading]) -> None:
        super().__init__(peers)
        self._read = read
        self._process = ProcessCollector(registry=None)

    def request(self, event: Event) -> None:
        """Count a request that was answered, by its event."""
        operation, outcome = event.event, event.outcome or ""
        self.requests[operation, outcome] += 1
        if event.items:
            self.items[operation] += event.items
        if outcome in self.rejected:
            self.rejected[outcome] += 1
        durations = self.durations.get(operation)
        if durations is None:
            durations = self.durations[operation] = Histogram(_REQUEST_BUCKETS)
        durations.observe((event.duration_ms or 0.0) / 1000)

    def refused(self, refusal: Refusal) -> None:
        """Count a connection that was refused or ended, or a request on it, before the application had it."""
        self.rejected[refusal] += 1

    def read_repaired(self, records: int) -> None:
        self.read_repairs += records

    def looked_up(self, alone: int, by_quorum: int) -> None:
        self.lookups["one"] += alone
        self.lookups["quorum"] += by_quorum

    def fence_retried(self) -> None:
        self.fence_retries += 1

    def hedged(self, hedge: Hedge) -> None:
        self.hedges[hedge] += 1

    def handed_off_to(self, peer: str, records: int) -> None:
        """Count records that a peer was owed and now has."""
        self.handed_off[peer] += records

    def compared(self, outcome: Compared | str) -> None:
        """Count a comparison of this replica with a peer's, or the words that say why there was none."""
        if isinstance(outcome, str):
            self.comparisons["failed"] += 1
            return
        mended = outcome.taken + outcome.given
        self.comparisons["mended" if mended or outcome.raised else "equal"] += 1
        self.mended += mended

    def synced(self, seconds: float) -> None:
        """Count a batch that the store wrote and synced."""
        self.syncs.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Implements prometheus_client's Collector: ``TABLE``, and what Linux tells of this process."""
        reading = self._read()
        yield from (row.family(self, reading) for row in TABLE)
        yield from self._process.collect()
