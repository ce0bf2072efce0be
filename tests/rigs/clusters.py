"""Helpers for tests of running clusters: clients that remember what they were told, and what nodes report of themselves."""

import itertools
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from chaos.testbed.api import Answer, Unanswered
from chaos.testbed.cluster import NODES, Cluster, wait_for
from quorumvault.server.storage.binding import plyvel

OWNER, OTHER = "clinic", "registry"
#: A multiple of what anything here takes: for a machine with other work.
SECONDS = 60.0


@dataclass
class Acknowledged:
    """The answers that clients got: token by value. Every value has one token, whoever asked."""

    tokens: dict[str, str] = field(default_factory=dict)

    def add(self, values: list[str], body: Any) -> None:
        for value, token in zip(values, body["tokens"], strict=True):
            assert self.tokens.setdefault(value, token) == token

    def tokenize(self, cluster: Cluster, via: str, values: Sequence[str]) -> None:
        answer = cluster.api(via, OWNER).tokenize(list(values))
        assert answer.status == 200, answer
        self.add(list(values), answer.body)


@contextmanager
def streaming(cluster: Cluster, acknowledged: Acknowledged) -> Iterator[threading.Event]:
    """Clients at all nodes tokenize new values until the block ends. The event is set by each answer."""
    stop, progress = threading.Event(), threading.Event()
    counter = itertools.count()

    def client(node: str) -> None:
        while not stop.is_set():
            values = [f"value {next(counter)}" for _ in range(10)]
            try:
                answer = cluster.api(node, OWNER).tokenize(values)
            except Unanswered:
                stop.wait(0.05)
                continue
            assert answer.status in (200, 503), answer
            if answer.status == 200:
                acknowledged.add(values, answer.body)
                progress.set()

    with ThreadPoolExecutor(len(NODES)) as pool:
        clients = [pool.submit(client, node) for node in NODES]
        try:
            yield progress
        finally:
            stop.set()
        for done in clients:
            done.result()


def passes(progress: threading.Event, answers: int = 10) -> None:
    """Waits for some more answers."""
    for _ in range(answers):
        progress.clear()
        assert progress.wait(20), "no request succeeded any more"


def goes_on(done: Callable[[], int], more: int, clients: Sequence[Future[None]]) -> None:
    """Waits until this much more is done. If a client has failed, raises its error."""
    goal = done() + more
    progress = wait_for(lambda: done() >= goal or any(client.done() for client in clients), SECONDS)
    for client in clients:
        if client.done():
            client.result()
    assert progress, f"{goal - done()} of {more} are missing after {SECONDS:g} s"


def resolves(cluster: Cluster, node: str, tokens: dict[str, str]) -> None:
    """Checks that every token stands for its value, as read through this node."""
    values, asked = list(tokens), list(tokens.values())
    for start in range(0, len(values), 5_000):
        answer = cluster.api(node, OWNER).detokenize(asked[start : start + 5_000])
        assert answer.status == 200, answer
        assert [result.get("value") for result in answer.body["results"]] == values[start : start + 5_000]


def through_each_pair(cluster: Cluster, check: Callable[[str], None]) -> None:
    for away in NODES:
        with without(cluster, away) as pair:
            for node in pair:
                check(node)


@contextmanager
def without(cluster: Cluster, away: str) -> Iterator[list[str]]:
    """Kills one node and yields the two others, which serve within the block. After the block all three serve again."""
    pair = [node for node in NODES if node != away]
    cluster.kill(away)
    cluster.wait_ready(*pair)
    yield pair
    cluster.bring_up(away)


def filled(cluster: Cluster, thousands: int) -> Acknowledged:
    """Stores this many thousands of values through n1."""
    acknowledged = Acknowledged()
    for number in range(thousands):
        acknowledged.tokenize(cluster, "n1", [f"stored {number * 1000 + each}" for each in range(1000)])
    return acknowledged


def runs(pid: int) -> bool:
    """Whether this process runs; an uncollected zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def records(cluster: Cluster, node: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields the records in the store of a stopped node."""
    with plyvel.DB(str(cluster.directory / node / "store"), create_if_missing=False) as db:
        yield from db.iterator(prefix=b"r")


def health(cluster: Cluster, node: str) -> Answer:
    answer = cluster.health(node)
    assert answer is not None, f"{node} does not answer"
    return answer


def events(cluster: Cluster, node: str) -> list[dict[str, Any]]:
    """All events that a node wrote into its event log."""
    return [json.loads(line) for line in (cluster.nodes[node].data / "events.jsonl").read_text().splitlines()]


def becomes_active(cluster: Cluster, node: str) -> None:
    assert wait_for(lambda: cluster.state(node) == "active", SECONDS), cluster.nodes[node].log_tail()
    cluster.wait_ready(reachable=3)


def exits(cluster: Cluster, node: str, code: int) -> str:
    """Waits until the node exits with this code. Returns the last line that it printed."""
    process = cluster.nodes[node].process
    assert process is not None
    assert process.wait(SECONDS) == code, cluster.nodes[node].log_tail()
    return cluster.nodes[node].log.read_text().splitlines()[-1]


def identical(cluster: Cluster, records: int) -> bool:
    """Whether all three disks hold the same, and this many records. Two acks answer a write: the third disk may get it later."""
    return all(cluster.verify(via) == {peer: {"records": records} for peer in NODES if peer != via} for via in NODES)


def metrics(cluster: Cluster, node: str) -> dict[str, float]:
    """Samples by name and labels, as written in the text: ``quorumvault_peer_up{peer="n2"}``."""
    with urllib.request.urlopen(f"{cluster.url(node)}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    assert list(text_string_to_metric_families(text))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")}


def sample_becomes(cluster: Cluster, node: str, sample: str, value: float) -> bool:
    """Waits until the metric has this value. Returns False if it never has."""
    return wait_for(lambda: metrics(cluster, node)[sample] == value, SECONDS)
