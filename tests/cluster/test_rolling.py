"""Rolling restarts and upgrades as docs/operations.md describes them: one node at a time, and no request is refused."""

import itertools
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster, check, executable, run, wait_for
from tests.rigs.clusters import OWNER, SECONDS, identical, metrics, resolves

#: Seconds; many times what is needed.
_PATIENCE = 20.0
#: On a slow machine these give slow answers, not refusals. A stopping node closes its connections, so none has to time out.
_DEADLINES = "\ntimeouts:\n  request: 60.0\n  round: 30.0\n  silence: 30.0\n"


@pytest.fixture
def patient(made: Cluster) -> Cluster:
    """A cluster with generous deadlines. None of its nodes has been started."""
    with (made.directory / "cluster.yaml").open("a") as file:
        file.write(_DEADLINES)
    return made


@pytest.fixture
def patient_cluster(patient: Cluster) -> Cluster:
    patient.bring_up()
    return patient


@pytest.fixture
def older_cluster(patient: Cluster) -> Cluster:
    """Three nodes of the previous release, as far as the wire shows."""
    patient.command_line = (sys.executable, "-m", "tests.cluster.older")
    patient.bring_up()
    return patient


@dataclass
class Asked:
    """What clients were told: the token of each value, and the number of finished calls."""

    tokens: dict[str, str] = field(default_factory=dict)
    calls: int = 0


@contextmanager
def asking(cluster: Cluster, nodes: Sequence[str], asked: Asked, numbers: Iterator[int]) -> Iterator[None]:
    """One client at each of ``nodes``, and one SDK client that knows all three, tokenize and detokenize until the block ends.

    Every call has to succeed. A client at a single node does not retry, so its calls have to succeed at once.
    """
    stop = threading.Event()

    def note(values: Sequence[str], tokens: Sequence[str], read: Sequence[object]) -> None:
        assert list(read) == list(values)
        asked.tokens.update(zip(values, tokens, strict=True))
        asked.calls += 1

    def values() -> Iterator[list[str]]:
        while not stop.is_set():
            yield [f"value {next(numbers)}" for _ in range(10)]

    def through(node: str) -> None:
        api = cluster.api(node, OWNER)
        for batch in values():
            tokenized = api.tokenize(batch)
            assert tokenized.status == 200, (node, tokenized)
            detokenized = api.detokenize(tokenized.body["tokens"])
            assert detokenized.status == 200, (node, detokenized)
            note(batch, tokenized.body["tokens"], [result["value"] for result in detokenized.body["results"]])

    def through_any() -> None:
        with qv.Client([cluster.url(node) for node in NODES], api_key=cluster.api_key(OWNER)) as vault:
            for batch in values():
                tokens = vault.tokenize(batch)
                note(batch, [str(token) for token in tokens], [result.value for result in vault.detokenize(tokens)])

    with ThreadPoolExecutor(len(nodes) + 1) as pool:
        clients = [pool.submit(through_any), *(pool.submit(through, node) for node in nodes)]
        try:
            yield
        finally:
            stop.set()
        for done in clients:
            done.result()


def goes_on(asked: Asked, calls: int = 20) -> bool:
    before = asked.calls
    return wait_for(lambda: asked.calls >= before + calls, _PATIENCE)


def wait_ready(cluster: Cluster) -> None:
    """Waits as an operator does."""
    urls = [part for node in NODES for part in ("--url", cluster.url(node))]
    check("wait", "--ready", *urls)


def test_a_rolling_restart_fails_no_request_through_the_other_nodes(patient_cluster: Cluster) -> None:
    asked, numbers = Asked(), itertools.count()
    for node in NODES:
        with asking(patient_cluster, [other for other in NODES if other != node], asked, numbers):
            assert goes_on(asked)
            assert patient_cluster.stop(node) == {node: 0}
            assert goes_on(asked)
            patient_cluster.start(node)
            wait_ready(patient_cluster)
            assert goes_on(asked)
    for node in NODES:
        resolves(patient_cluster, node, asked.tokens)
    assert wait_for(lambda: identical(patient_cluster, len(asked.tokens)), SECONDS)


def serves_through_each(cluster: Cluster, tokens: dict[str, str], stage: str) -> None:
    """Through every node: tokenizes, rotates, and reads what each of the other nodes has written, in every epoch."""
    for node in NODES:
        api = cluster.api(node, OWNER)
        values = [f"{stage}, through {node}, {number}" for number in range(20)]
        answer = api.tokenize(values)
        assert answer.status == 200, answer
        tokens.update(zip(values, answer.body["tokens"], strict=True))
        rotated = api.post("/rotate-epoch", {"from_epoch": answer.body["epoch"]})
        assert (rotated.status, rotated.body["active_epoch"]) == (200, answer.body["epoch"] + 1)
    for node in NODES:
        resolves(cluster, node, tokens)


def compared(cluster: Cluster, via: str) -> set[str]:
    """The peers with which this node could compare its replica."""
    done = run("repair", str(cluster.directory), "--node", via, "--json")
    return {peer for peer, found in json.loads(done.stdout)["peers"].items() if "problem" not in found}


def tells_alone(cluster: Cluster, via: str, tokens: dict[str, str]) -> bool:
    """Reads all tokens through one node. Returns whether that node knew each to be settled."""
    sample = 'quorumvault_lookups_total{by="one"}'
    before = metrics(cluster, via)[sample]
    resolves(cluster, via, tokens)
    return metrics(cluster, via)[sample] == before + len(tokens)


def test_a_rolling_upgrade_serves_all_through_every_node_at_every_stage(older_cluster: Cluster) -> None:
    tokens: dict[str, str] = {}
    serves_through_each(older_cluster, tokens, "all older")
    older_cluster.command_line = (executable(),)
    for stage, node in enumerate(NODES, start=1):
        older_cluster.stop(node)
        value = f"while {node} is away"
        via = next(other for other in NODES if other != node)
        tokens[value] = older_cluster.api(via, OWNER).tokenize([value]).body["tokens"][0]
        older_cluster.start(node)
        wait_ready(older_cluster)
        serves_through_each(older_cluster, tokens, f"{stage} upgraded")
        assert wait_for(lambda: compared(older_cluster, NODES[0]) == {*NODES[1:]}, SECONDS)
        assert wait_for(lambda: tells_alone(older_cluster, NODES[0], tokens), SECONDS)
    # Counts are not compared: a batch that the fence refused may have left records of the previous epoch.
    assert wait_for(lambda: all(list(each) == ["records"] for each in older_cluster.verify("n1").values()), SECONDS)
    for node in NODES:
        # No message made this node close a connection.
        assert "a message that cannot be read" not in older_cluster.nodes[node].log.read_text()
