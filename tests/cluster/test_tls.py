"""Certificates of a running cluster, renewed under load, revoked, expired and foreign; and attempts to connect without TLS."""

import contextlib
import json
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import quorumvault as qv
from chaos.testbed.api import trusting
from chaos.testbed.cluster import NODES, Cluster, check, wait_for
from quorumvault.config.cluster import load_cluster
from quorumvault.crypto.x509 import Authority, peer_name
from tests.rigs.certificates import authority
from tests.rigs.clusters import OWNER, SECONDS


class Secured(Cluster):
    """A cluster with TLS on its API. It remembers where the event logs were when the test began."""

    def begin(self) -> None:
        self.wait_ready(reachable=3)
        self._before = {node: len(self._lines(node)) for node in NODES}

    def _lines(self, node: str) -> list[str]:
        return (self.directory / node / "events.jsonl").read_text().splitlines()

    def events(self, node: str, name: str) -> list[dict[str, Any]]:
        happened = map(json.loads, self._lines(node)[self._before[node] :])
        return [event for event in happened if event["event"] == name]

    def refused(self, node: str, words: str) -> bool:
        """Whether the node soon writes to its event log that it refused somebody for this reason."""
        return wait_for(lambda: any(words in event["detail"] for event in self.events(node, "peer_refused")), SECONDS)

    def reload(self, *nodes: str) -> None:
        """Sends SIGHUP, as an operator does, and waits until the nodes have reloaded."""
        for node in nodes or NODES:
            before = len(self.events(node, "reload"))
            self.nodes[node].require_process().send_signal(signal.SIGHUP)
            assert wait_for(lambda node=node, before=before: len(self.events(node, "reload")) > before, SECONDS)  # type: ignore[misc]
            assert self.events(node, "reload")[-1]["outcome"] == "ok"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Secured.create(tmp_path_factory.mktemp("tls") / "vault", (OWNER,), tls=True) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def secured(running: Secured) -> Secured:
    """A cluster whose nodes are in touch. Each test leaves it in touch, with whatever certificates."""
    running.begin()
    return running


def client(cluster: Cluster, *nodes: str) -> qv.Client:
    urls = [cluster.url(node) for node in nodes or NODES]
    return qv.Client(urls, api_key=cluster.api_key(OWNER), cacert=cluster.cacert)


def own(cluster: Cluster, node: str) -> Path:
    return cluster.directory / "secrets" / f"{node}.pem"


@contextmanager
def asking(cluster: Cluster) -> Iterator[Callable[[], int]]:
    """A client that sends requests without a pause and never retries. Yields their count; raises if one of them failed."""
    stop, failed, count = threading.Event(), list[BaseException](), 0

    def ask() -> None:
        nonlocal count
        try:
            while not stop.is_set():
                for node in NODES:
                    answer = cluster.api(node, OWNER).tokenize([f"value {count}", "again"])
                    assert answer.status == 200, answer
                    back = cluster.api(node, OWNER).detokenize(answer.body["tokens"])
                    assert [result["status"] for result in back.body["results"]] == ["ok", "ok"]
                    count += 1
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join()
        if failed:  # this is the cause, whatever the block raised
            raise failed[0]


def goes_on(count: Callable[[], int]) -> bool:
    before = count()
    return wait_for(lambda: count() > before + 5, SECONDS)


def test_all_certificates_are_renewed_under_load_and_no_request_fails(secured: Secured) -> None:
    def shown() -> list[str]:
        return [ssl.get_server_certificate(load_cluster(secured.directory / "cluster.yaml").nodes[node].api) for node in NODES]

    before = shown()
    with asking(secured) as count, client(secured) as vault:
        vault.tokenize(["before"])
        for _ in range(2):
            assert goes_on(count)
            check("certs", "renew", str(secured.directory))
            secured.reload()
            vault.tokenize(["after"])
        assert goes_on(count)
    assert not set(before) & set(shown())
    assert not any(secured.events(node, name) for node in NODES for name in ("peer_down", "peer_refused"))


def test_a_changed_ca_under_load_and_no_request_fails(secured: Secured) -> None:
    """Follows docs/operations.md: first both CAs everywhere, then the new certificates, then the new CA alone."""
    secrets = secured.directory / "secrets"
    old = {name: (secrets / name).read_bytes() for name in ("ca.pem", "revoked.pem", "n1.pem", "n2.pem", "n3.pem")}
    for name in ("ca.key", "ca.pem", "issued.pem", "revoked.pem"):
        (secrets / name).rename(secured.directory / f"old-{name}")
    check("certs", "issue", str(secured.directory))
    new = {name: (secrets / name).read_bytes() for name in old}
    assert all(new[name] != old[name] for name in old)
    both = {name: new[name] + old[name] for name in ("ca.pem", "revoked.pem")}

    def put(files: dict[str, bytes]) -> None:
        for name, content in files.items():
            draft = secrets / f"{name}.new"
            draft.write_bytes(content)
            draft.chmod(0o600)
            draft.rename(secrets / name)  # the client may read it at any time
        trusting.cache_clear()

    def take(files: dict[str, bytes]) -> None:
        put(files)
        secured.reload()

    take(old)
    with asking(secured) as count:
        for files in ({**old, **both}, {**new, **both}):
            take(files)
            assert goes_on(count)
    put(new)
    with asking(secured) as count:
        for node in NODES:
            before = len(secured.events(node, "peer_up"))
            secured.reload(node)
            assert wait_for(lambda node=node, before=before: len(secured.events(node, "peer_up")) >= before + 2, SECONDS)  # type: ignore[misc]
            secured.wait_ready(reachable=3)
        assert goes_on(count)


def stranger(cluster: Cluster, pem: bytes | None, file: Path) -> None:
    """Connects to n1's peer port with this certificate, or without TLS, and waits until n1 closes the connection."""
    peer = load_cluster(cluster.directory / "cluster.yaml").nodes["n1"].peer
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError))
        connection = stack.enter_context(socket.create_connection(peer))
        if pem is None:
            connection.sendall(b"QVPEER\x00\x01" + bytes(48))
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            file.write_bytes(pem)
            context.load_cert_chain(file)
            connection = stack.enter_context(context.wrap_socket(connection))
        while connection.recv(1 << 12):
            pass


def test_a_leaked_node_is_cut_off_and_comes_back_with_another_certificate_and_disk(secured: Secured, tmp_path: Path) -> None:
    """Whoever has the old host's files is no node any more, whatever names and disk these files hold.

    Proves: a node is whom its certificate names.
    """
    with client(secured, "n1", "n2") as vault:
        tokens = vault.tokenize(["before the leak"])
        leaked = own(secured, "n3").read_bytes()
        check("certs", "revoke", str(secured.directory), "--node", "n3")
        secured.reload("n1", "n2")
        revoked = "its certificate is revoked: if it is to come back, issue another for it"
        for node in ("n1", "n2"):
            assert secured.refused(node, revoked)
            assert secured.reachable(node) == 2
        assert secured.reachable("n3") < 2
        assert secured.api("n3", OWNER).tokenize(["x"]).status == 503
        assert vault.detokenize(tokens)[0].value == "before the leak"
        secured.kill("n3")
        secured.replace_disk("n3")
        check("certs", "issue", str(secured.directory), "--node", "n3")
        secured.start("n3")
        secured.begin()
        stranger(secured, leaked, tmp_path / "leaked.pem")
        assert secured.refused("n1", revoked)
        assert vault.detokenize(tokens)[0].value == "before the leak"


def test_strangers_at_the_peer_port_are_refused_with_a_line_each(secured: Secured, tmp_path: Path) -> None:
    cluster, secrets = load_cluster(secured.directory / "cluster.yaml"), secured.directory / "secrets"
    ours, now = Authority.parse((secrets / "ca.pem").read_bytes(), (secrets / "ca.key").read_bytes()), datetime.now(UTC)
    name = peer_name(cluster.cluster_id, "n3")
    for pem, words in (
        (authority("other").issue(name, "n3", [], now), "is of a CA that is not among those trusted here"),
        (ours.issue(name, "n3", [], now - timedelta(days=3), days=1), "its certificate has expired"),
        (ours.issue(peer_name("another-cluster", "n3"), "n3", [], now), "is of cluster 'another-cluster'"),
        (own(secured, "n1").read_bytes(), "its certificate is that of 'n1', and n1 speaks here with n2 or n3"),
        (None, "127.0.0.1 came to nothing: what it sends is not TLS"),
    ):
        stranger(secured, pem, tmp_path / "stranger.pem")
        assert secured.refused("n1", words), words
    assert len(secured.events("n1", "peer_refused")) == 5


def test_a_node_does_not_start_with_a_certificate_that_no_peer_takes(secured: Secured) -> None:
    cluster_id = load_cluster(secured.directory / "cluster.yaml").cluster_id
    foreign = authority("other").issue(peer_name(cluster_id, "n3"), "n3", [], datetime.now(UTC))
    file = own(secured, "n3")
    good = file.read_bytes()
    secured.kill("n3")
    for pem, words in (
        (foreign, "expected one that the CAs of peers.ca have signed"),
        (own(secured, "n2").read_bytes(), "expected the certificate of n3, this is n2's"),
    ):
        file.write_bytes(pem)
        secured.start("n3")
        assert secured.nodes["n3"].require_process().wait(SECONDS) == 1
        assert f"{file}: {words}" in secured.nodes["n3"].log_tail()
    file.write_bytes(good)
    secured.start("n3")


def test_metrics_and_health_say_when_certificates_end(secured: Secured) -> None:
    def left(use: str) -> float:
        name = f'quorumvault_certificate_expiry_seconds{{use="{use}"}} '
        (line,) = [line for line in secured.api("n1").text("/metrics").splitlines() if line.startswith(name)]
        return float(line.split()[-1])

    assert 364 * 86_400 < left("api") <= 365 * 86_400
    assert left("peers") == pytest.approx(left("api"), abs=60)
    check("certs", "renew", str(secured.directory), "--node", "n1", "--days", "20")
    secured.reload("n1")
    assert left("peers") < 20 * 86_400
    answer = secured.health("n1")
    assert answer is not None
    assert [warning.partition(" (")[0] for warning in answer.body["warnings"]] == [
        "the certificate for other nodes expires in 19 days",
        "the certificate for the API expires in 19 days",
    ]
