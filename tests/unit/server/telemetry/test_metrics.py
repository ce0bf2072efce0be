"""What /metrics says of events, rounds, syncs and the node; and that its series are bounded and identify nobody."""

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from quorumvault.errors import RequestError
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.hinted_handoff import Owed
from quorumvault.protocol.join import Progress
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.healing.scrub import ScrubCounts
from quorumvault.server.http.routes import create_app
from quorumvault.server.telemetry.connection_refusals import Refusal
from quorumvault.server.telemetry.event_log import Event
from quorumvault.server.telemetry.metrics import COMPARISONS, REJECTIONS, STATES, Metrics, Reading
from tests.rigs.vault import METRICS, Clock, EventList, Rig, bearer

#: All of /metrics at one moment. The names and labels in it are those that operators rely on.
EXPOSITION = (Path(__file__).parent / "exposition.txt").read_text()
OPERATIONS = {"tokenize", "detokenize", "retokenize", "tokens", "rotate_epoch", "epoch", "fields"}
PEERS = ("n2", "n3")
OWED = {peer: Owed(0, 0.0) for peer in PEERS}
#: The outcomes of a request. All of them are names of this program.
OUTCOMES = {"ok", "disconnected", "cancelled"}


@dataclass
class Gauged:
    """Metrics of n1, whose clock and state the test changes."""

    reading: Reading = field(
        default_factory=lambda: Reading("active", 3, {"n2": True, "n3": True}, 0, 5_000_000, OWED, ScrubCounts())
    )
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.metrics = Metrics(PEERS, lambda: self.reading)

    def value(self, name: str, **labels: str) -> float | None:
        return next((s.value for s in samples(self.metrics.text()) if (s.name, s.labels) == (name, labels)), None)


def samples(text: bytes) -> Iterator[Any]:
    for family in text_string_to_metric_families(text.decode()):
        yield from family.samples


@pytest.fixture
def gauged() -> Gauged:
    return Gauged()


def exposition(metrics: Metrics) -> str:
    """All metrics except Linux's values for the process, which differ each time."""
    blocks = re.split(r"^(?=# HELP )", metrics.text().decode(), flags=re.MULTILINE)
    return "".join(block for block in blocks if not block.startswith("# HELP process_"))


def codes(kind: type[RequestError] = RequestError) -> Iterator[str]:
    """The codes of all errors that a request may end in."""
    for child in kind.__subclasses__():
        yield child.code
        yield from codes(child)


def test_names_help_and_types_are_there_before_any_request(gauged: Gauged) -> None:
    described = [line for line in EXPOSITION.splitlines() if line.startswith("#")]
    assert [line for line in exposition(gauged.metrics).splitlines() if line.startswith("#")] == described


def test_the_exposition_is_the_same_to_the_letter(gauged: Gauged) -> None:
    """Dashboards and alerts read the exposition. exposition.txt was written before the metrics became a table."""
    scrub = ScrubCounts()
    scrub.checked, scrub.corrupt, scrub.mended = 1000, 3, 2
    owed = {"n2": Owed(0, 0.0), "n3": Owed(101, 65.5)}
    joining = Progress(records=7, expected=9)
    gauged.reading = Reading(
        "joining",
        2,
        {"n2": True, "n3": False},
        4,
        5_000_000,
        owed,
        scrub,
        joining,
        {"n1": False, "n2": True},
        {"n1": 0, "n2": 3},
        True,
        123_456,
        1_200_000,
        40,
        2,
        {"peers": 86_400.5},
        {"3fq7tzd2": -1.5},
        2,
        40_000,
        2_000_000,
        {"ok": 4, "failed": 1},
        2,
        5,
        ("0.9.0", "3.13.1"),
        7,
        3,
    )
    metrics = gauged.metrics
    metrics.request(Event(event="tokenize", outcome="ok", items=10, duration_ms=3.0))
    metrics.request(Event(event="tokenize", outcome="busy", duration_ms=0.25))
    metrics.request(Event(event="detokenize", outcome="no-quorum", items=7, duration_ms=5000.0))
    metrics.refused(Refusal.LATE)
    for records in (2, 1):
        metrics.read_repaired(records)
    metrics.looked_up(5, 2)
    metrics.fence_retried()
    for hedge in (Hedge.SENT, Hedge.SENT, Hedge.WITHHELD):
        metrics.hedged(hedge)
    for records in (7, 2):
        metrics.handed_off_to("n3", records)
    for outcome in (Compared(), Compared(buckets=2, taken=3, given=1), Compared(raised=1), "n3 does not answer"):
        metrics.compared(outcome)
    metrics.synced(0.004)
    metrics.synced(99.0)
    assert exposition(metrics) == EXPOSITION


def test_the_process_says_what_every_dashboard_of_processes_asks_for(gauged: Gauged) -> None:
    names = ("cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds", "start_time_seconds")
    for name in names:
        value = gauged.value(f"process_{name}")
        assert value is not None, name
        assert value > 0, name


def test_requests_add_up_and_only_those_that_were_turned_away_are_rejected(gauged: Gauged) -> None:
    for items, milliseconds in ((10, 3.0), (5, 40.0), (None, 0.2)):
        gauged.metrics.request(Event(event="tokenize", outcome="ok", items=items, duration_ms=milliseconds))
    gauged.metrics.request(Event(event="tokenize", outcome="invalid", duration_ms=0.1))
    assert gauged.value("quorumvault_requests_total", operation="tokenize", outcome="ok") == 3
    assert gauged.value("quorumvault_items_total", operation="tokenize") == 15
    assert gauged.value("quorumvault_request_duration_seconds_sum", operation="tokenize") == pytest.approx(0.0433)
    assert [gauged.value("quorumvault_rejected_total", reason=reason) for reason in REJECTIONS] == [0] * len(REJECTIONS)
    assert gauged.value("quorumvault_rejected_total", reason="invalid") is None


def test_a_value_at_a_bound_is_in_its_bucket(gauged: Gauged) -> None:
    for seconds in (0.0001, 0.00011, 99.0):
        gauged.metrics.synced(seconds)
    for bound, count in {"0.0001": 1, "0.00025": 2, "2.5": 2, "+Inf": 3}.items():
        assert gauged.value("quorumvault_sync_duration_seconds_bucket", le=bound) == count


def test_room_that_is_not_known_has_no_sample(gauged: Gauged) -> None:
    assert gauged.value("quorumvault_disk_free_bytes") == 5_000_000
    gauged.reading = Reading("joining", 2, {"n2": True, "n3": False}, 4, None, OWED, ScrubCounts())
    assert gauged.value("quorumvault_disk_free_bytes") is None


def test_syncs_come_from_another_thread(gauged: Gauged) -> None:
    writer = threading.Thread(target=lambda: [gauged.metrics.synced(seconds) for seconds in (0.3, 0.004)])
    writer.start()
    writer.join()
    assert gauged.value("quorumvault_sync_duration_seconds_count") == 2
    assert gauged.value("quorumvault_sync_duration_seconds_sum") == pytest.approx(0.304)


class Counting(EventList):
    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    async def write(self, event: Event) -> bool:
        self._metrics.request(event)
        return await super().write(event)


SECRET_HEADERS: Mapping[str, str] = {"X-Request-ID": "request-from-outside", "X-Purpose": "purpose-from-outside"}


def test_labels_are_words_of_this_program_whatever_is_sent(gauged: Gauged) -> None:
    rig = Rig()
    rig.client = TestClient(create_app(replace(rig.services, events=Counting(gauged.metrics))), headers=bearer())
    token = rig.tokens(["value-from-outside"])[0]
    rig.post("/detokenize", {"tokens": [token, "qv_1_unknown"]}, SECRET_HEADERS)
    rig.post("/detokenize", {"token": "token-from-outside"})
    rig.post("/tokenize", {"values": [1.5], "member-from-outside": 1})
    rig.post("/tokenize", b"bytes from outside")
    rig.post("/tokenize", {"values": [token]})
    rig.post("/rotate-epoch", {"from_epoch": 1})
    rig.post("/rotate-epoch", {"from_epoch": 99}, key="admin")
    for path in ("/epoch", "/fields", "/path-from-outside"):
        rig.client.get(path)
        rig.client.get(path, headers={**bearer("nobody"), **SECRET_HEADERS})
    for _ in range(3):
        rig.post("/detokenize", {"token": token}, key="slow")
    text = gauged.metrics.text().decode()
    for foreign in ("outside", token, "clinic", "lab", "slow", "qvk", "qv_"):
        assert foreign not in text
    allowed = {
        "operation": OPERATIONS,
        "outcome": OUTCOMES | set(COMPARISONS) | set(Hedge) | set(codes()),
        "by": {"one", "quorum"},
        "peer": set(PEERS),
        "state": set(STATES),
        "reason": set(REJECTIONS),
        "answered_by": {"filter", "memory", "store"},
        "use": {"peers", "api"},
        "version": {""},
        "python": {""},
    }
    for sample in samples(gauged.metrics.text()):
        for label, word in sample.labels.items():
            assert label == "le" or word in allowed[label], (sample.name, label, word)
    assert gauged.value("quorumvault_rejected_total", reason="rate-limited") == 1
    assert gauged.value("quorumvault_rejected_total", reason="unauthenticated") == 2


def test_metrics_need_no_key_and_are_in_prometheus_text_format() -> None:
    answer = Rig().client.get("/metrics", headers={"Authorization": ""})
    assert (answer.status_code, answer.content) == (200, METRICS)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
